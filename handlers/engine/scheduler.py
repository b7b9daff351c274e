"""Continuous batching: waiting -> running -> finished, one step at a time.

    waiting ──free slot──> reads its prompt ──last chunk──> decodes ──> finished
       └──────────── cancelled or deadline passed ─────────────────────────┘

A step is two kinds of calls of the session:

    1. decode: every sequence of which one token, its newest, is not in the cache yet; a row each,
       of that token and perhaps of drafted ones (drafting.py)
    2. chunks: of one sequence of which more are not: a prompt, or ids that a grammar forced

so each answer grows by a token between any two chunks, however long a prompt is. Why two calls
and not one padded one: docs/engine.md.

Pure logic over `Runner`: no threads, no ONNX Runtime, and no clock but the one that times decode
calls. The engine calls it, from one thread at a time.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Sequence as Items
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from handlers.engine.advance import advance
from handlers.engine.batch import Batch, Runner, chunk_batch, decode_batch
from handlers.engine.params import FinishReason, Step
from handlers.engine.prefix import PrefixReuse
from handlers.engine.sequence import Sequence
from handlers.engine.slots import Slots
from handlers.engine.stopping import interrupted
from handlers.errors import as_request_error, ends_a_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from handlers.engine.drafting import Drafting
    from handlers.errors import RequestError

Event = tuple[Sequence, Step]


class Scheduler:
    """Who runs, and what the next call computes."""

    def __init__(
        self,
        runner: Runner,
        *,
        slots: int,
        context_length: int,
        prefill_chunk: int,
        prompt_lookup: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._runner = runner
        self._prompt_lookup = prompt_lookup and not runner.recurrent  # a wrong draft stays in it
        self._clock = clock
        self._prefill_chunk = prefill_chunk
        self._prefixes = PrefixReuse(runner, slots=slots, capacity=context_length)
        self._slots = Slots(slots, self._prefixes)
        self._waiting: deque[Sequence] = deque()
        self._arrivals = itertools.count()
        self._oldest_first = False
        self.calls = 0
        """Of the session, so far: a step without one that tells nobody anything did nothing."""

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
        events += self._admit()
        events += self._decode(now)
        events += self._read(now)
        return events

    def clear(self) -> None:
        """Lets go of every sequence, and of what is known of the caches: a bug may have lied."""
        self._waiting.clear()
        for sequence in self.running:
            self._slots.leave(sequence)
        self._prefixes.forget_all()

    def _retire(self, now: float) -> list[Event]:
        events = []
        for sequence in [*self.running, *self._waiting]:
            reason = interrupted(sequence, now)
            if reason is not None:
                if sequence.slot is None:
                    self._waiting.remove(sequence)
                events.append(self._finish(sequence, reason))
        return events

    def _admit(self) -> list[Event]:
        """First come, first served."""
        events = []
        while self._waiting and not self._slots.full:
            newcomer = self._waiting.popleft()
            events += self._contain([newcomer], partial(self._slots.take, newcomer))
        return events

    def _decode(self, now: float) -> list[Event]:
        """The newest token of every answer, and drafted ids behind it."""
        decoding = [sequence for sequence in self.running if sequence.unread == 1]
        if not decoding:
            return []
        return self._contain(decoding, partial(self._decode_all, decoding, now))

    def _decode_all(self, decoding: Items[Sequence], now: float) -> list[Event]:
        drafts = self._drafts(decoding)
        batch = decode_batch(decoding, drafts)
        begun = self._clock()
        logits = self._call(batch, decoding, now)
        if self._prompt_lookup:
            self._drafting.times.note(batch.rows, batch.columns, self._clock() - begun)
        rows = iter(logits)
        return [
            event
            for sequence, draft in zip(decoding, drafts, strict=True)
            for event in self._verify(sequence, draft, [next(rows) for _ in (0, *draft)])
        ]

    @cached_property
    def _drafting(self) -> Drafting:
        from handlers.engine.drafting import Drafting  # not before an answer decodes

        return Drafting()

    def _drafts(self, decoding: Items[Sequence]) -> list[list[int]]:
        return self._drafting.drafts(decoding) if self._prompt_lookup else [[] for _ in decoding]

    def _verify(
        self, sequence: Sequence, draft: Items[int], logits: Items[NDArray[np.float32]]
    ) -> list[Event]:
        """Goes on by an id, and by one more as long as the id is the drafted one.

        Each id is chosen as it would have been without a draft, from the same logits. Drafts that
        were wrong are in the cache, beyond `past`, and are not remembered there.
        """
        events = []
        for row, drafted in zip(logits, [*draft, None], strict=True):
            self._prefixes.wrote(sequence.held_slot, sequence.past, [sequence.newest()])
            sequence.past += 1
            events += self._advance(sequence, sequence.past - 1, row[np.newaxis])
            if sequence.slot is None or sequence.newest() != drafted:
                break
        return events

    def _read(self, now: float) -> list[Event]:
        """One chunk. What it leaves of a chunk's tokens goes to those who then have read it all.

        Else a grammar's few forced ids, or a short prompt, would each take a step of their own.
        """
        reading = [sequence for sequence in self.running if sequence.unread > 1]
        events = self._extend(reading)
        left = self._prefill_chunk
        for sequence in self._in_turn([each for each in reading if each.slot is not None]):
            events += self._extend([sequence])  # by what this step's earlier chunks have written
            whole = sequence.unread <= left
            if sequence.slot is not None and (whole or left == self._prefill_chunk):
                size = min(left, sequence.unread)
                events += self._contain([sequence], partial(self._read_chunk, sequence, size, now))
                left -= size
        return events

    def _extend(self, sequences: Items[Sequence]) -> list[Event]:
        """Takes over what some slot holds of their prompts."""
        events = []
        for sequence in sequences:
            events += self._contain([sequence], partial(self._prefixes.extend, sequence))
        return events

    def _in_turn(self, reading: list[Sequence]) -> list[Sequence]:
        """The one with the least to read first, and the oldest first, by turns.

        First come, first served would hold a short question behind a long document for
        seconds; the shortest first might hold the document for ever. By turns a prompt waits
        at most twice as long as first come, first served would let it.
        """
        if not reading:
            return []
        self._oldest_first = not self._oldest_first
        if self._oldest_first:
            return sorted(reading, key=lambda sequence: sequence.arrival)
        return sorted(reading, key=lambda sequence: sequence.unread)

    def _read_chunk(self, sequence: Sequence, size: int, now: float) -> list[Event]:
        batch = chunk_batch(sequence, size)
        logits = self._call(batch, [sequence], now)
        self._prefixes.wrote(batch.first_slot, sequence.past, batch.input_ids[0])
        stop = int(batch.seqlens_k[0]) + 1
        position = sequence.scored(stop).start
        sequence.past = stop
        return self._advance(sequence, position, logits)

    def _call(self, batch: Batch, sequences: Items[Sequence], now: float) -> NDArray[np.float32]:
        self._prefixes.before(batch)
        self.calls += 1
        logits = self._runner.step(batch)
        for sequence in sequences:
            if sequence.started is None:
                sequence.started = now
        return logits

    def _advance(
        self, sequence: Sequence, position: int, logits: NDArray[np.float32]
    ) -> list[Event]:
        return self._contain([sequence], partial(self._go_on, sequence, position, logits))

    def _go_on(self, sequence: Sequence, position: int, logits: NDArray[np.float32]) -> list[Event]:
        events = [(sequence, step) for step in advance(sequence, position, logits)]
        if events and events[-1][1].finish_reason is not None:
            self._slots.leave(sequence)
        return events

    def _contain(
        self, sequences: Items[Sequence], work: Callable[[], list[Event] | None]
    ) -> list[Event]:
        """The events of some work for these sequences. What it raises ends them, and no other.

        A request chooses how much memory some of it takes: a MemoryError is that request's.
        """
        try:
            return work() or []
        except BaseException as error:  # a panic of llguidance's is no Exception
            if ends_a_task(error):  # of the main thread, where that runs the engine
                raise
            fault = as_request_error(error, "A step failed")
            return [self._fail(sequence, fault) for sequence in sequences]

    def _fail(self, sequence: Sequence, fault: RequestError) -> Event:
        """Logits that are no numbers may come of keys and values that are none: forget them."""
        if sequence.slot is not None:
            self._prefixes.forget(sequence.slot)
        sequence.fault = fault
        return self._finish(sequence, FinishReason.FAULT)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> Event:
        self._slots.leave(sequence)
        return sequence, Step(None, reason, sequence.index)
