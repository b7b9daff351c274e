"""Gate 3: drift is what its formulas say, and over a limit it fails with an example."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers.processors import TemplateProcessing

from handlers.engine.batch import Batch
from handlers.text.tokenizer import Tokenizer
from model_export.recipe import DecoderTolerance
from model_export.reporting import ExportError
from model_export.verify.corpus import evaluation_text
from model_export.verify.drift import (
    CHUNK,
    Comparison,
    RecordedLogits,
    check_drift,
    compare,
    for_choosing,
    held_out,
    windows_of,
)
from model_export.verify.exchange import EncodedText
from tests.support.tiny_tokenizers import tiny_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer())


class ScriptedLogits:
    """Stands for a session: the logits of a token depend on that token alone."""

    def __init__(self, table: list[list[float]]) -> None:
        self.table = np.array(table, np.float32)
        self.chunks: list[int] = []

    def step(self, batch: Batch) -> NDArray[np.float32]:
        self.chunks.append(len(batch.logits_indices))
        rows: NDArray[np.float32] = self.table[batch.input_ids[0][batch.logits_indices]]
        return rows


def scripted(exact: list[list[float]], quantised: list[list[float]], ids: list[int]) -> Comparison:
    sessions: list[Any] = [ScriptedLogits(exact), ScriptedLogits(quantised)]
    return compare(sessions[0], sessions[1], [ids])


def test_drift_is_what_its_formulas_say() -> None:
    log = math.log
    drift = scripted(
        [[log(0.5), log(0.5)], [log(0.75), log(0.25)]],
        [[log(0.25), log(0.75)], [log(0.75) + 3, log(0.25) + 3]],
        [0, 1, 1],
    ).summary()
    assert drift.tokens == 3
    assert drift.kl == pytest.approx((0.5 * log(2) + 0.5 * log(2 / 3)) / 3)
    assert drift.top1_agreement == pytest.approx(2 / 3)
    # The text's own next tokens: 1 after 0, and 1 after 1.
    losses = [-log(0.75), -log(0.25)]
    assert drift.perplexity == pytest.approx(math.exp(sum(losses) / 2))
    assert drift.perplexity_ratio == pytest.approx(math.exp((-log(0.75) + log(0.5)) / 2))


def test_a_window_is_compared_in_chunks_that_continue_one_another() -> None:
    session: Any = ScriptedLogits([[0.0, 1.0], [1.0, 0.0]])
    comparison = compare(session, session, [[0, 1] * CHUNK])
    assert session.chunks == [CHUNK] * 4
    assert comparison.summary().kl == 0.0
    assert np.isnan(comparison.fp32_loss).sum() == 1


@pytest.mark.parametrize(
    ("tolerance", "said"),
    [
        (
            DecoderTolerance(0.01, 0.0, 100.0),
            r"mean KL divergence is 0\.1\d+, the recipe's limit 0\.01",
        ),
        (DecoderTolerance(1.0, 0.9, 100.0), r"top-1 agreement is 0\.5000, the recipe's limit 0\.9"),
        (DecoderTolerance(1.0, 0.0, 1.0), r"perplexity ratio is 1\.\d+, the recipe's limit 1"),
    ],
)
def test_gate_3_fails_with_the_figure_the_limit_and_the_first_difference(
    tokenizer: Tokenizer, tolerance: DecoderTolerance, said: str
) -> None:
    first, second = tokenizer.encode("a")[0], tokenizer.encode("b")[0]
    exact = [[0.0] * 500 for _ in range(500)]
    exact[first][second] = 9.0
    quantised = [list(row) for row in exact]
    quantised[second][second] = 5.0
    comparison = scripted(exact, quantised, [first, second] * 8)
    with pytest.raises(ExportError, match=rf"Gate 3 failed: .*{said}.* after 'ab'"):
        check_drift(comparison, tolerance, [[first, second] * 8], tokenizer)


def test_recorded_logits_are_read_in_their_order(tmp_path: Path) -> None:
    rows = np.arange(3 * CHUNK * 4, dtype=np.float32).reshape(-1, 4)
    (tmp_path / "logits").write_bytes(rows.tobytes())
    session: Any = ScriptedLogits([[0.0] * 4])
    said = RecordedLogits(tmp_path / "logits", 4)
    windows = [[0] * (CHUNK + 5), [0] * (2 * CHUNK - 5)]
    comparison = compare(said, session, windows)
    exact = rows - rows.max(axis=1, keepdims=True)
    probabilities = np.exp(exact) / np.exp(exact).sum(axis=1, keepdims=True)
    wanted = (probabilities * np.log(4 * probabilities)).sum(axis=1)
    assert comparison.kl == pytest.approx(wanted, abs=1e-5)


def test_windows_cover_the_whole_text_and_stay_inside_the_context(tokenizer: Tokenizer) -> None:
    windows = windows_of(EncodedText.of(evaluation_text(), tokenizer), 100)
    assert {len(window) for window in windows[:-1]} == {100}
    assert [token for window in windows for token in window] == tokenizer.encode(evaluation_text())


def test_the_gates_judge_every_second_window_and_leave_the_others() -> None:
    windows = [[number] * 4 for number in range(5)]
    assert held_out(windows) == [[1] * 4, [3] * 4]
    assert for_choosing(windows) == [[0] * 4, [2] * 4, [4] * 4]
    assert held_out(windows[:1]) == windows[:1]  # of a text that fits one window


def test_every_window_starts_with_what_the_tokenizer_puts_before_a_text() -> None:
    backend = tiny_tokenizer()
    backend.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    text = EncodedText.of("the quick brown fox jumps over the lazy dog", Tokenizer(backend))
    windows = windows_of(text, 5)
    assert all(window[0] == 0 and len(window) <= 5 for window in windows)
