"""Runners for bench.draft: one with a clock, and one whose ids come true as a script says."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from handlers.engine.batch import Batch, ModelRunner

CERTAIN = np.float32(1e9)
"""A logit above all others."""


class TimedRunner:
    """Runs batches, and keeps the seconds of each call by its columns."""

    def __init__(self, runner: ModelRunner) -> None:
        self._runner = runner
        self.recurrent = runner.recurrent
        self.baked_ids = runner.baked_ids
        self.vocab_size = runner.vocab_size
        self.seconds: dict[int, list[float]] = defaultdict(list)

    def step(self, batch: Batch) -> NDArray[np.float32]:
        """Returns the runner's logits."""
        begun = time.perf_counter()
        logits = self._runner.step(batch)
        self.seconds[batch.columns].append(time.perf_counter() - begun)
        return logits

    def copy_prefix(self, source: int, target: int, start: int, stop: int) -> None:
        """Copies as the runner does."""
        self._runner.copy_prefix(source, target, start, stop)

    def medians(self, least: int = 3) -> dict[int, float]:
        """Returns the median milliseconds of a call by its columns, of `least` calls or more."""
        return {
            columns: round(1e3 * statistics.median(times), 2)
            for columns, times in sorted(self.seconds.items())
            if len(times) >= least
        }


class ScriptedRunner(TimedRunner):
    """Computes all that the draft model computes, then prefers the ids of a script.

    The script is for one sequence: at each position either the id that the model is known to
    choose, or another one. A draft's worth is so decided beforehand, its cost is the real one.
    """

    def __init__(self, runner: ModelRunner) -> None:
        super().__init__(runner)
        self._preferred: NDArray[np.int64] = np.empty(0, np.int64)

    def follow(self, ids: Sequence[int], hits: NDArray[np.bool_]) -> None:
        """Takes the ids of prompt and answer; where `hits` is false another one is preferred."""
        known = np.array(ids, np.int64)
        self._preferred = np.where(hits, known, (known + 1) % self.vocab_size)

    def step(self, batch: Batch) -> NDArray[np.float32]:
        """Returns the logits, of which at each position the preferred id's is the largest."""
        logits = super().step(batch)
        for row, position in zip(logits, positions_of(batch), strict=True):
            if position + 1 < len(self._preferred):
                row[self._preferred[position + 1]] = CERTAIN
        return logits


def positions_of(batch: Batch) -> NDArray[np.int64]:
    """Returns the position in its sequence of each of the batch's wanted logits."""
    rows, columns = np.divmod(batch.logits_indices, batch.columns)
    starts = batch.seqlens_k + 1 - batch.query_seqlens
    positions: NDArray[np.int64] = starts[rows] + columns
    return positions


def hits_of(acceptance: float, count: int, seed: int) -> NDArray[np.bool_]:
    """Returns `count` outcomes in random order, of which exactly that share are true.

    An id is judged only where all before it in its draft came true, so the acceptance is the share
    of hits wherever drafts begin.
    """
    hits = [place < round(acceptance * count) for place in range(count)]
    random.Random(seed).shuffle(hits)  # noqa: S311  a schedule, not a secret
    return np.array(hits)
