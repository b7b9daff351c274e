"""Continuous batching: waiting -> running -> finished, one step at a time.

    waiting ──lowest free slot──> reads its prompt ──last chunk──> decodes ──> finished
       └───────────────── cancelled or deadline passed ─────────────────────────┘

A step is two calls of the session:

    1. decode: the newest token of every sequence that has read its prompt, one row each
    2. prefill: the next chunk of one prompt

so each answer grows by a token between any two chunks, however long a prompt is. Why two calls
and not one padded one: docs/engine.md.

Pure logic over `Runner`: no clock of its own, no threads, no ONNX Runtime. The engine calls it,
from one thread at a time.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING

from handlers.engine.batch import Batch, Runner, decode_batch, prefill_batch
from handlers.engine.sequence import FinishReason, Sequence, Step
from handlers.engine.stopping import ended, interrupted
from handlers.errors import EngineFault

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Event = tuple[Sequence, Step]


class Scheduler:
    """Who runs, and what the next call computes."""

    def __init__(self, runner: Runner, *, slots: int, prefill_chunk: int) -> None:
        self._runner = runner
        self._prefill_chunk = prefill_chunk
        self._slots: list[Sequence | None] = [None] * slots
        self._waiting: deque[Sequence] = deque()
        self._arrivals = itertools.count()
        self._oldest_first = False

    @property
    def running(self) -> list[Sequence]:
        """The sequences that hold a slot, in order of slot."""
        return [sequence for sequence in self._slots if sequence is not None]

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence; it starts at the first step that has a slot for it."""
        sequence.arrival = next(self._arrivals)
        self._waiting.append(sequence)

    def step(self, now: float) -> list[Event]:
        """One turn: who must leave leaves, who can join joins, then decode, then prefill.

        `now` is `time.monotonic()`. Returns what happened, in order.
        """
        events = self._retire(now)
        self._admit()
        events += self._decode()
        events += self._prefill(now)
        return events

    def finish_all(self, reason: FinishReason) -> list[Event]:
        """Ends every sequence, running and waiting."""
        everyone = [*self.running, *self._waiting]
        self._waiting.clear()
        return [self._finish(sequence, reason) for sequence in everyone]

    def _retire(self, now: float) -> list[Event]:
        events = []
        for sequence in [*self.running, *self._waiting]:
            reason = interrupted(sequence, now)
            if reason is not None:
                if sequence.slot < 0:
                    self._waiting.remove(sequence)
                events.append(self._finish(sequence, reason))
        return events

    def _admit(self) -> None:
        """First come, first served, into the lowest free slot, which keeps decode batches small."""
        while self._waiting and None in self._slots:
            sequence = self._waiting.popleft()
            sequence.slot = self._slots.index(None)
            self._slots[sequence.slot] = sequence

    def _decode(self) -> list[Event]:
        decoding = [sequence for sequence in self.running if not sequence.unread]
        return self._run(decode_batch(decoding), decoding) if decoding else []

    def _prefill(self, now: float) -> list[Event]:
        sequence = self._next_prompt()
        if sequence is None:
            return []
        if sequence.started is None:
            sequence.started = now
        return self._run(prefill_batch(sequence, self._prefill_chunk), [sequence])

    def _next_prompt(self) -> Sequence | None:
        """The shortest prompt and the oldest one by turns.

        First come, first served would hold a short question behind a long document for
        seconds; the shortest first might hold the document for ever. By turns a prompt waits
        at most twice as long as first come, first served would let it.
        """
        reading = [sequence for sequence in self.running if sequence.unread]
        if not reading:
            return None
        self._oldest_first = not self._oldest_first
        if self._oldest_first:
            return min(reading, key=lambda sequence: sequence.arrival)
        return min(reading, key=lambda sequence: sequence.unread)

    def _run(self, batch: Batch, sequences: Items[Sequence]) -> list[Event]:
        """One call. A fault ends the sequences that were in it, and no other."""
        try:
            logits = self._runner.step(batch)
        except EngineFault as fault:
            return [self._fail(sequence, fault) for sequence in sequences]
        for sequence in sequences:
            sequence.past = int(batch.seqlens_k[sequence.slot - batch.first_slot]) + 1
        # A chunk that is not a prompt's last has no logits, and so no event.
        return [
            self._choose(sequence, row) for sequence, row in zip(sequences, logits, strict=False)
        ]

    def _choose(self, sequence: Sequence, logits: NDArray[np.float32]) -> Event:
        try:
            token_id = sequence.sampler.sample(logits)
        except EngineFault as fault:
            return self._fail(sequence, fault)
        reason = ended(sequence, token_id)
        if reason is FinishReason.EOS:
            return self._finish(sequence, reason)
        sequence.tokens.append(token_id)
        if reason is not None:
            return self._finish(sequence, reason, token_id)
        return sequence, Step(token_id, index=sequence.index)

    def _fail(self, sequence: Sequence, fault: EngineFault) -> Event:
        sequence.fault = fault
        return self._finish(sequence, FinishReason.FAULT)

    def _finish(
        self, sequence: Sequence, reason: FinishReason, token_id: int | None = None
    ) -> Event:
        if sequence.slot >= 0:
            self._slots[sequence.slot] = None
            sequence.slot = -1
        return sequence, Step(token_id, reason, sequence.index)
