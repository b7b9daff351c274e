"""A session whose rows are a known function of an input's ids, segments and places.

A row that is another's, a lost token or padding that is not masked changes it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from handlers.encoder.batching import EncoderBatch
from handlers.encoder.encoder import Encoder
from handlers.encoder.request import EncoderInput
from handlers.errors import EngineFault

WIDTH = 3
VOCABULARY = 1000
LONGEST = 600
NAN = 998
"""An input with this id has a row that is no numbers."""
POISON = 999
"""A call that is given this id fails."""


class FakeRunner:
    """Runs batches as a session would, and records them."""

    def __init__(self) -> None:
        self.batches: list[EncoderBatch] = []
        self.bug: BaseException | None = None

    def run(self, batch: EncoderBatch) -> NDArray[np.float32]:
        self.batches.append(batch)
        if self.bug is not None:
            raise self.bug
        if (batch.input_ids == POISON).any():
            raise EngineFault("The call was poisoned.")
        mask = batch.attention_mask.astype(bool)
        rows = [
            row_of(ids[kept].tolist(), segments[kept].tolist())
            for ids, segments, kept in zip(batch.input_ids, batch.token_type_ids, mask, strict=True)
        ]
        return np.array(rows, np.float32)


class GatedRunner(FakeRunner):
    """Waits before each call until the test allows it one."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed = threading.Semaphore(0)

    def run(self, batch: EncoderBatch) -> NDArray[np.float32]:
        self.allowed.acquire()
        return super().run(batch)


def row_of(ids: Sequence[int], segments: Sequence[int] | None = None) -> list[float]:
    """Returns what an input alone must get."""
    if NAN in ids:
        return [float("nan")] * WIDTH
    places = sum(place * token for place, token in enumerate(ids, start=1)) % 100_003
    return [float(len(ids)), float(places), float(sum(segments or ()))]


def fake_encoder(runner: FakeRunner | None = None, limit: int = 36) -> Encoder:
    return Encoder(
        runner or FakeRunner(),
        width=WIDTH,
        vocab_size=VOCABULARY,
        max_tokens=LONGEST,
        limit=limit,
    )


def inputs(*lengths: int, first: int = 1) -> list[EncoderInput]:
    """Inputs of these lengths, no two alike."""
    return [
        EncoderInput([(first + place + 7 * index) % 900 for place in range(length)])
        for index, length in enumerate(lengths)
    ]


def rows_of(several: Sequence[EncoderInput]) -> list[list[float]]:
    return [row_of(list(each.ids)) for each in several]
