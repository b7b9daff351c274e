"""Predicts what a draft model gains, from which of its guesses come true and from bytes.

A call over 1 + n columns computes n drafted ids beside the newest one, and gives as many ids as
come true in a row, and one more. Its time is that of its columns and of the n steps of the draft
model before it. Times are counted in calls of one column and follow from the bytes that each reads,
not from a clock: an export is accepted or refused alike on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Hits = Sequence[NDArray[np.bool_]]
    """Of each text: whether the draft model's first choice at a position is the model's."""

COLUMN_COSTS = (1.0, 1.08, 1.08, 1.2, 1.51, 1.59, 1.76, 1.93)
"""The time of a call over one row with 1 to 8 columns: of 889 MB by AVX2 (docs/kernels.md)."""
CALL_BYTES = 20_000_000
"""What a call takes beside its weights, as bytes that are read in that time: a millisecond."""


@dataclass(frozen=True, slots=True)
class Drafting:
    """Drafts of so many ids on one kind of text."""

    ids: int
    calls: int
    accepted: int
    judged: int
    """Guesses before which all others of the same draft had come true."""

    @property
    def ids_a_call(self) -> float:
        """Returns the ids that a call gives, its own among them."""
        return 1 + self.accepted / self.calls if self.calls else 1.0

    @property
    def acceptance(self) -> float:
        """Returns the share of the judged guesses that came true."""
        return self.accepted / self.judged if self.judged else 0.0


@dataclass(frozen=True, slots=True)
class Gain:
    """The speed with drafts of so many ids, over that without, and what each call gives."""

    ids: int
    ids_a_call: float
    gain: float


@dataclass(frozen=True, slots=True)
class DraftPrediction:
    """The gain of the best number of drafted ids, by the acceptance on all kinds of text."""

    acceptance: float
    """The mean of those of the kinds, which count alike."""
    by_kind: dict[str, float]
    agreement: dict[str, float]
    """The share of all positions, by kind."""
    step_cost: float
    """The time of the draft model's step, in calls of one column of the model."""
    gains: tuple[Gain, ...]

    @property
    def best(self) -> Gain:
        """Returns the gain of the number of ids that gains most."""
        return max(self.gains, key=lambda each: each.gain)

    def figures(self) -> dict[str, Any]:
        """Returns what the manifest says beside the acceptance."""
        best = self.best
        return {
            "acceptance": self.by_kind,
            "agreement": self.agreement,
            "step_cost": self.step_cost,
            "gains": [asdict(each) for each in self.gains],
            "ids": best.ids,
            "gain": best.gain,
        }

    def __str__(self) -> str:
        kinds = ", ".join(f"{name} {share:.2f}" for name, share in self.by_kind.items())
        return (
            f"{self.acceptance:.2f} of its guesses come true ({kinds}), and one takes "
            f"{self.step_cost:.2f} of the model's own time. {self.best.ids} at a time make "
            f"{self.best.gain:.2f} times the speed, by prediction"
        )


def predict(hits: Mapping[str, Hits], step_cost: float) -> DraftPrediction:
    """Predicts the gain, from the hits on each kind of text. The kinds count alike.

    A server's requests lie between them: on its own greedy answers a model is easiest to guess, on
    a text that others wrote hardest.
    """
    lengths = range(1, len(COLUMN_COSTS))
    tried = {ids: {kind: draft(each, ids) for kind, each in hits.items()} for ids in lengths}
    gains = tuple(_gain(ids, list(tried[ids].values()), step_cost) for ids in lengths)
    best = max(gains, key=lambda each: each.gain)
    by_kind = {kind: each.acceptance for kind, each in tried[best.ids].items()}
    return DraftPrediction(
        acceptance=_mean(list(by_kind.values())),
        by_kind=by_kind,
        agreement={kind: _agreement(each) for kind, each in hits.items()},
        step_cost=step_cost,
        gains=gains,
    )


def step_cost(draft_bytes: float, model_bytes: float) -> float:
    """Returns the time of a draft model's step over that of a call of the model's, by bytes read.

    Both are memory's speed while one row decodes (docs/kernels.md).
    """
    return (draft_bytes + CALL_BYTES) / (model_bytes + CALL_BYTES)


def draft(hits: Hits, ids: int) -> Drafting:
    """Goes through texts as decoding with drafts of so many ids does, call by call."""
    runs = [run for each in hits for run in _runs(each, ids)]
    accepted = sum(runs)
    return Drafting(ids, len(runs), accepted, accepted + sum(run < ids for run in runs))


def _runs(hits: NDArray[np.bool_], ids: int) -> Iterator[int]:
    """Yields how many ids of each draft come true; of drafts that end within the text."""
    place = 0
    while place + ids < len(hits):
        drafted = hits[place : place + ids]
        run = ids if drafted.all() else int(drafted.argmin())
        yield run
        place += run + 1


def _gain(ids: int, kinds: Sequence[Drafting], cost: float) -> Gain:
    """Averages the time of an id over the kinds."""
    call = COLUMN_COSTS[ids] + ids * cost
    each = [kind.ids_a_call for kind in kinds]
    seconds = _mean([call / count for count in each])
    return Gain(ids, _mean(each), 1 / seconds)


def _agreement(hits: Hits) -> float:
    return float(np.concatenate(hits).mean())


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
