"""Continuous batching: waiting -> running -> finished, one step at a time.

    waiting ──free slot──> reads its prompt ──last chunk──> decodes ──> finished
       └──────────── cancelled or deadline passed ─────────────────────────┘

A step is two kinds of calls of the session:

    1. decode: every sequence of which one token, its newest, is not in the cache yet; a row each
    2. chunks: of one sequence of which more are not: a prompt, or ids that a grammar forced

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

from handlers.engine.advance import advance
from handlers.engine.batch import Batch, Runner, chunk_batch, decode_batch
from handlers.engine.prefix import PrefixReuse
from handlers.engine.sequence import FinishReason, Sequence, Step
from handlers.engine.slots import Slots
from handlers.engine.stopping import interrupted
from handlers.errors import EngineFault, GrammarTooComplex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from handlers.errors import RequestError

Event = tuple[Sequence, Step]


class Scheduler:
    """Who runs, and what the next call computes."""

    def __init__(
        self, runner: Runner, *, slots: int, context_length: int, prefill_chunk: int
    ) -> None:
        self._runner = runner
        self._prefill_chunk = prefill_chunk
        self._prefixes = PrefixReuse(runner, slots=slots, capacity=context_length)
        self._slots = Slots(slots, self._prefixes)
        self._waiting: deque[Sequence] = deque()
        self._arrivals = itertools.count()
        self._oldest_first = False

    @property
    def running(self) -> list[Sequence]:
        """The sequences that hold a slot, in order of slot."""
        return self._slots.running

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence; it starts at the first step that has a slot for it."""
        sequence.arrival = next(self._arrivals)
        self._waiting.append(sequence)

    def step(self, now: float) -> list[Event]:
        """One turn: who must leave leaves, who can join joins, then decode, then chunks.

        `now` is `time.monotonic()`. Returns what happened, in order.
        """
        events = self._retire(now)
        self._admit()
        events += self._decode(now)
        events += self._read(now)
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
        """First come, first served."""
        while self._waiting and not self._slots.full:
            self._slots.take(self._waiting.popleft())

    def _decode(self, now: float) -> list[Event]:
        decoding = [sequence for sequence in self.running if sequence.unread == 1]
        return self._run(decode_batch(decoding), decoding, now) if decoding else []

    def _read(self, now: float) -> list[Event]:
        """One chunk. What it leaves of a chunk's tokens goes to those who then have read it all.

        Else a grammar's few forced ids, or a short prompt, would each take a step of their own.
        """
        events = []
        left = self._prefill_chunk
        for sequence in self._readers():
            self._prefixes.extend(sequence)  # by what this step's earlier chunks have written
            if left == self._prefill_chunk or sequence.unread <= left:
                batch = chunk_batch(sequence, left)
                left -= batch.input_ids.size
                events += self._run(batch, [sequence], now)
        return events

    def _readers(self) -> list[Sequence]:
        """The one with the least to read first, and the oldest first, by turns.

        First come, first served would hold a short question behind a long document for
        seconds; the shortest first might hold the document for ever. By turns a prompt waits
        at most twice as long as first come, first served would let it.
        """
        reading = [sequence for sequence in self.running if sequence.unread > 1]
        if not reading:
            return []
        for sequence in reading:
            self._prefixes.extend(sequence)
        self._oldest_first = not self._oldest_first
        if self._oldest_first:
            return sorted(reading, key=lambda sequence: sequence.arrival)
        return sorted(reading, key=lambda sequence: sequence.unread)

    def _run(self, batch: Batch, sequences: Items[Sequence], now: float) -> list[Event]:
        """One call. A fault ends the sequences that were in it, and no other."""
        self._prefixes.before(batch)
        try:
            logits = self._runner.step(batch)
        except EngineFault as fault:
            return [self._fail(sequence, fault) for sequence in sequences]
        self._prefixes.after(batch)
        # A decode call has a row of logits for each sequence, a chunk's are all of one.
        each = len(logits) // len(sequences)
        events = []
        for number, sequence in enumerate(sequences):
            if sequence.started is None:
                sequence.started = now
            stop = int(batch.seqlens_k[sequence.slot - batch.first_slot]) + 1
            position = sequence.scored(stop).start
            sequence.past = stop
            rows = logits[number * each : (number + 1) * each]
            events += self._advance(sequence, position, rows)
        return events

    def _advance(
        self, sequence: Sequence, position: int, logits: NDArray[np.float32]
    ) -> list[Event]:
        try:
            steps = advance(sequence, position, logits)
        except (EngineFault, GrammarTooComplex) as fault:
            return [self._fail(sequence, fault)]
        if steps and steps[-1].finish_reason is not None:
            self._slots.leave(sequence)
        return [(sequence, step) for step in steps]

    def _fail(self, sequence: Sequence, fault: RequestError) -> Event:
        """Logits that are no numbers may come of keys and values that are none: forget them."""
        self._prefixes.forget(sequence.slot)
        sequence.fault = fault
        return self._finish(sequence, FinishReason.FAULT)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> Event:
        self._slots.leave(sequence)
        return sequence, Step(None, reason, sequence.index)
