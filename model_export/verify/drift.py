"""Gate 3 of decoders: how far the quantised graph drifts from the fp32 model on the shipped text.

Three figures, over every position of every window of the text:
    kl                  mean Kullback-Leibler divergence of the next-token distributions, in nats:
                        what the whole distribution lost
    top1_agreement      share of positions with the same most likely token: what greedy decoding
                        sees
    perplexity_ratio    quantised over fp32, of the text itself: what a user feels
llama.cpp's `llama-perplexity --kl-divergence` measures the same three.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from handlers.engine.batch import Batch
from model_export.recipe import DecoderTolerance
from model_export.reporting import ExportError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from handlers.text.tokenizer import Tokenizer
    from model_export.verify.exchange import EncodedText

WINDOW = 256
"""Tokens that a window's last position sees. Each window starts with an empty cache."""
CHUNK = 128
"""Positions computed at once: their logits are 25 MB for 49,152 tokens of vocabulary."""


class Figures(Protocol):
    """The three figures, of whatever was measured."""

    @property
    def kl(self) -> float:
        """Nats a token."""

    @property
    def top1_agreement(self) -> float:
        """A share of the positions."""

    @property
    def perplexity_ratio(self) -> float:
        """Over the fp32 model's."""


@dataclass(frozen=True, slots=True)
class Drift:
    """The quantised graph against the model in fp32."""

    tokens: int
    kl: float
    top1_agreement: float
    perplexity: float
    """Of the quantised graph."""
    perplexity_ratio: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Every position of the text, in order."""

    kl: NDArray[np.float64]
    fp32_top1: NDArray[np.int64]
    quantised_top1: NDArray[np.int64]
    fp32_loss: NDArray[np.float64]
    quantised_loss: NDArray[np.float64]
    """-log p of the text's own next token; NaN at a window's last position, which has none."""

    def summary(self) -> Drift:
        """Returns the three figures, and what they were measured on."""
        loss = float(np.nanmean(self.quantised_loss))
        return Drift(
            tokens=len(self.kl),
            kl=float(self.kl.mean()),
            top1_agreement=float((self.fp32_top1 == self.quantised_top1).mean()),
            perplexity=math.exp(loss),
            perplexity_ratio=math.exp(loss - float(np.nanmean(self.fp32_loss))),
        )


class Logits(Protocol):
    """A source of the logits of a text: a Session, or what a model said before."""

    def step(self, batch: Batch) -> NDArray[np.float32]:
        """Returns float32 [wanted, vocabulary] of the next tokens."""


@dataclass(slots=True)
class RecordedLogits:
    """The logits that decoder/logits.py has written, in the order of the windows."""

    path: Path
    vocabulary: int
    rows: int = 0

    def step(self, batch: Batch) -> NDArray[np.float32]:
        """Reads the next rows."""
        count = len(batch.logits_indices)
        offset = self.rows * self.vocabulary * 4
        self.rows += count
        read = np.fromfile(self.path, np.float32, count * self.vocabulary, offset=offset)
        return read.reshape(count, self.vocabulary)


def windows_of(text: EncodedText, context_length: int) -> list[list[int]]:
    """Cuts the text's ids into windows, each after what the tokenizer puts before a text (<s>)."""
    ids, marked = text.ids, text.ids_with_special_tokens
    prefix = next((marked[:n] for n in range(len(marked)) if marked[n:][: len(ids)] == ids), [])
    size = min(WINDOW, context_length) - len(prefix)
    cut = [ids[start : start + size] for start in range(0, len(ids), size)]
    return [[*prefix, *window] for window in cut if len(window) > 1]


def held_out(windows: list[list[int]]) -> list[list[int]]:
    """Returns every second window, so that both halves have some of each kind of text.

    The gates judge on this half alone.
    """
    return windows[1::2] or windows


def for_choosing(windows: list[list[int]]) -> list[list[int]]:
    """Returns the other windows, by which a precision is chosen."""
    return windows[::2]


def compare(fp32: Logits, quantised: Logits, windows: list[list[int]]) -> Comparison:
    """Runs both over all windows. A session needs one slot of the longest window."""
    parts = [part for window in windows for part in _compare_window(fp32, quantised, window)]
    return Comparison(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def check_drift(
    comparison: Comparison,
    tolerance: DecoderTolerance,
    windows: list[list[int]],
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    """Returns the figures of gate 3. Raises ExportError with the first that is over its limit."""
    drift = comparison.summary()
    over = first_over_limit(drift, tolerance)
    if over is not None:
        raise ExportError(
            f"Gate 3 failed: the quantised graph's {over}. "
            f"{_first_difference(comparison, windows, tokenizer)} Choose another [precision] "
            f'(weights = "auto" finds the smallest that holds; where that fails, a max_mb above '
            f"its size), or widen [tolerance]; docs/precision.md has figures to choose by."
        )
    return asdict(drift)


def first_over_limit(drift: Figures, limits: DecoderTolerance) -> str | None:
    """Names the first figure that does not keep its limit, and both; None where all do."""
    for name, value, limit, holds in (
        ("mean KL divergence", drift.kl, limits.max_kl, drift.kl <= limits.max_kl),
        (
            "top-1 agreement",
            drift.top1_agreement,
            limits.min_top1_agreement,
            drift.top1_agreement >= limits.min_top1_agreement,
        ),
        (
            "perplexity ratio",
            drift.perplexity_ratio,
            limits.max_perplexity_ratio,
            drift.perplexity_ratio <= limits.max_perplexity_ratio,
        ),
    ):
        if not holds:  # as a NaN
            return f"{name} is {value:.4f}, the recipe's limit {limit:g}"
    return None


def _compare_window(
    fp32: Logits, quantised: Logits, window: list[int]
) -> Iterator[tuple[NDArray[Any], ...]]:
    ids = np.array(window, np.int64)
    targets = np.append(ids[1:], -1)
    for start in range(0, len(ids), CHUNK):
        batch = batch_at(ids, start)
        yield _compare_logits(
            fp32.step(batch), quantised.step(batch), targets[start : start + CHUNK]
        )


def batch_at(ids: NDArray[np.int64], start: int) -> Batch:
    """Returns the next CHUNK tokens of slot 0, with all their logits."""
    chunk = ids[start : start + CHUNK]
    return Batch(
        first_slot=0,
        input_ids=chunk[np.newaxis],
        query_seqlens=np.array([len(chunk)], np.int32),
        seqlens_k=np.array([start + len(chunk) - 1], np.int32),
        logits_indices=np.arange(len(chunk), dtype=np.int64),
    )


def _compare_logits(
    fp32: NDArray[np.float32], quantised: NDArray[np.float32], targets: NDArray[np.int64]
) -> tuple[NDArray[Any], ...]:
    """Compares logits [positions, vocabulary]; `targets`: the text's next ids, -1 for none.

    A position at a time, in the same memory: 0.6 MB for 150,000 entries stay in a CPU's cache, and
    all of it takes a third of the time that whole chunks take.
    """
    scratch = np.empty((3, fp32.shape[1]), np.float32)
    positions = [
        _compare_position(one, other, target, scratch)
        for one, other, target in zip(fp32, quantised, targets, strict=True)
    ]
    return tuple(np.array(column) for column in zip(*positions, strict=True))


def _compare_position(
    fp32: NDArray[np.float32],
    quantised: NDArray[np.float32],
    target: int,
    scratch: NDArray[np.float32],
) -> tuple[float, int, int, float, float]:
    """Returns what Comparison has of a position; both logits are [vocabulary].

    With p and q as exp(logit - largest), and P and Q as their sums, the divergence is
    sum(p * (log p - log q)) / P - log P + log Q.
    """
    log_p, log_q, difference = scratch
    fp32_top1, quantised_top1 = int(fp32.argmax()), int(quantised.argmax())
    np.subtract(fp32, fp32[fp32_top1], out=log_p)
    np.subtract(quantised, quantised[quantised_top1], out=log_q)
    np.subtract(log_p, log_q, out=difference)
    fp32_loss, quantised_loss = -float(log_p[target]), -float(log_q[target])
    p, q = np.exp(log_p, out=log_p), np.exp(log_q, out=log_q)
    log_sum_p, log_sum_q = (math.log(each.sum(dtype=np.float64)) for each in (p, q))
    kl = float(np.dot(p, difference)) / math.exp(log_sum_p) - log_sum_p + log_sum_q
    if target < 0:
        return kl, fp32_top1, quantised_top1, math.nan, math.nan
    return kl, fp32_top1, quantised_top1, fp32_loss + log_sum_p, quantised_loss + log_sum_q


def _first_difference(
    comparison: Comparison, windows: list[list[int]], tokenizer: Tokenizer
) -> str:
    differing = np.flatnonzero(comparison.fp32_top1 != comparison.quantised_top1)
    if not len(differing):
        return "Both graphs agree on every most likely token."
    position = int(differing[0])
    before = [token for window in windows for token in window][: position + 1]
    fp32 = tokenizer.decode([int(comparison.fp32_top1[position])])
    quantised = tokenizer.decode([int(comparison.quantised_top1[position])])
    return (
        f"They first differ after {tokenizer.decode(before)[-80:]!r}: fp32 goes on with "
        f"{fp32!r}, quantised with {quantised!r}."
    )
