"""Continuous batching: waiting -> running -> finished, one step at a time.

    waiting ──free slot──> prefills ──last chunk──> decodes ──> finished
       └──────────── cancelled or deadline passed ─────────────────┘

A step is two kinds of calls of the session:

    1. decode: every sequence of which one token, its newest, is not in the cache yet; a row each,
       of that token and perhaps of drafted ones (drafter.py)
    2. prefill: chunks of a sequence of which more are not: a prompt, or ids that a grammar forced

so each answer grows by a token between any two chunks, however long a prompt is. Why two calls
and not one padded one: docs/engine.md.

Pure logic over `ModelRunner`: no threads, no ONNX Runtime, and no clock but the one that times
decode calls. The engine calls it, from one thread at a time.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Sequence as Items
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from handlers.engine.batch import Batch, ModelRunner, decode_batch, prefill_batch
from handlers.engine.drafter import Drafter
from handlers.engine.params import FinishReason, Step
from handlers.engine.prefix_cache import PrefixCache
from handlers.engine.sequence import Sequence, check_abort, postprocess
from handlers.errors import as_request_error, ends_a_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from handlers.engine.draft_model import DraftModel
    from handlers.errors import RequestError

Event = tuple[Sequence, Step]


class Scheduler:
    """Decides which sequences run, and what the next call computes."""

    def __init__(
        self,
        runner: ModelRunner,
        *,
        slots: int,
        context_length: int,
        prefill_chunk: int,
        prompt_lookup: bool,
        draft: DraftModel | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._runner = runner
        self._clock = clock
        self._chunk_size = prefill_chunk
        self._prefixes = PrefixCache(runner, slots=slots, capacity=context_length)
        self._slots = Slots(slots, self._prefixes)
        self._drafter = Drafter(
            prompt_lookup=prompt_lookup and not runner.recurrent,  # a wrong draft stays in a state
            draft=None if runner.recurrent else draft,
            vocab_size=runner.vocab_size,
            clock=clock,
        )
        self._waiting: deque[Sequence] = deque()
        self._arrivals = itertools.count()
        self._oldest_first = False
        self.num_model_calls = 0
        """So far: a step without a call and without an event did nothing."""

    @property
    def running(self) -> list[Sequence]:
        """The sequences that hold a slot, in order of slot."""
        return self._slots.running

    @property
    def guess_rate(self) -> float | None:
        """The share of a draft model's guesses that come true, None where there is none."""
        return self._drafter.guess_rate

    def add(self, sequence: Sequence) -> None:
        """Queues a sequence; it starts at the first step that has a slot for it."""
        sequence.arrival = next(self._arrivals)
        self._waiting.append(sequence)

    def step(self, now: float) -> list[Event]:
        """Ends what must end, admits what can be admitted, then decodes, then prefills.

        `now` is `time.monotonic()`. Returns what happened, in order.
        """
        events = self._abort(now)
        events += self._admit()
        events += self._decode(now)
        events += self._prefill(now)
        return events

    def clear(self) -> None:
        """Drops every sequence, and the records of all slots, which a bug may have made wrong."""
        self._waiting.clear()
        for sequence in self.running:
            self._slots.free(sequence)
        self._prefixes.drop_all()
        self._drafter.clear()

    def _abort(self, now: float) -> list[Event]:
        events = []
        for sequence in [*self.running, *self._waiting]:
            reason = check_abort(sequence, now)
            if reason is not None:
                if sequence.slot is None:
                    self._waiting.remove(sequence)
                events.append(self._finish(sequence, reason))
        return events

    def _admit(self) -> list[Event]:
        """Assigns free slots: first come, first served."""
        events = []
        while self._waiting and not self._slots.full:
            newcomer = self._waiting.popleft()
            events += self._contain([newcomer], partial(self._slots.assign, newcomer))
        return events

    def _decode(self, now: float) -> list[Event]:
        """Computes the newest token of every answer, and drafted ids after it."""
        decoding = [sequence for sequence in self.running if sequence.num_uncomputed_tokens == 1]
        if not decoding:
            return []
        return self._contain(decoding, partial(self._decode_all, decoding, now))

    def _decode_all(self, decoding: Items[Sequence], now: float) -> list[Event]:
        drafts = self._drafter.drafts(decoding)
        batch = decode_batch(decoding, drafts)
        begun = self._clock()
        logits = self._run_model(batch, decoding, now)
        seconds = self._clock() - begun
        rows = iter(logits)
        events = [
            event
            for sequence, draft in zip(decoding, drafts, strict=True)
            for event in self._verify(sequence, draft, [next(rows) for _ in (0, *draft)])
        ]
        self._drafter.judge(batch, seconds)
        return events

    def _verify(
        self, sequence: Sequence, draft: Items[int], logits: Items[NDArray[np.float32]]
    ) -> list[Event]:
        """Appends an id, and one more as long as the id is the drafted one.

        Each id is chosen as it would have been without a draft, from the same logits. Drafts that
        were wrong are in the cache, beyond `num_computed_tokens`, and are not recorded.
        """
        events = []
        for row, drafted in zip(logits, [*draft, None], strict=True):
            position = sequence.num_computed_tokens
            self._prefixes.record(sequence.held_slot, position, [sequence.last_token()])
            sequence.num_computed_tokens = position + 1
            events += self._process_logits(sequence, position, row[np.newaxis])
            if sequence.slot is None or sequence.num_uncomputed_tokens != 1:  # a grammar forces ids
                break
            if sequence.last_token() != drafted:
                break
        return events

    def _prefill(self, now: float) -> list[Event]:
        """Computes one chunk. Tokens that it leaves go to sequences that they complete.

        Otherwise a grammar's few forced ids, or a short prompt, would each take a step of their
        own.
        """
        queue = [sequence for sequence in self.running if sequence.num_uncomputed_tokens > 1]
        events = self._reuse_prefixes(queue)
        left = self._chunk_size
        for sequence in self._prefill_order([each for each in queue if each.slot is not None]):
            events += self._reuse_prefixes([sequence])  # what this step's chunks have written
            uncomputed = sequence.num_uncomputed_tokens
            if sequence.slot is not None and (uncomputed <= left or left == self._chunk_size):
                size = min(left, uncomputed)
                chunk = partial(self._prefill_chunk, sequence, size, now)
                events += self._contain([sequence], chunk)
                left -= size
        return events

    def _reuse_prefixes(self, sequences: Items[Sequence]) -> list[Event]:
        events = []
        for sequence in sequences:
            events += self._contain([sequence], partial(self._prefixes.reuse, sequence))
        return events

    def _prefill_order(self, queue: list[Sequence]) -> list[Sequence]:
        """Sorts by the number of tokens left in one step, by arrival in the next.

        First come, first served would keep a short question waiting for a long document for
        seconds; the shortest first might keep the document waiting for ever. In alternation a
        prompt waits at most twice as long as first come, first served would let it.
        """
        if not queue:
            return []
        self._oldest_first = not self._oldest_first
        if self._oldest_first:
            return sorted(queue, key=lambda sequence: sequence.arrival)
        return sorted(queue, key=lambda sequence: sequence.num_uncomputed_tokens)

    def _prefill_chunk(self, sequence: Sequence, size: int, now: float) -> list[Event]:
        batch = prefill_batch(sequence, size)
        logits = self._run_model(batch, [sequence], now)
        self._prefixes.record(batch.first_slot, sequence.num_computed_tokens, batch.input_ids[0])
        stop = int(batch.seqlens_k[0]) + 1
        position = sequence.scored_positions(stop).start
        sequence.num_computed_tokens = stop
        return self._process_logits(sequence, position, logits)

    def _run_model(
        self, batch: Batch, sequences: Items[Sequence], now: float
    ) -> NDArray[np.float32]:
        self._prefixes.invalidate(batch)
        self.num_model_calls += 1
        logits = self._runner.step(batch)
        for sequence in sequences:
            if sequence.started is None:
                sequence.started = now
        return logits

    def _process_logits(
        self, sequence: Sequence, position: int, logits: NDArray[np.float32]
    ) -> list[Event]:
        return self._contain([sequence], partial(self._postprocess, sequence, position, logits))

    def _postprocess(
        self, sequence: Sequence, position: int, logits: NDArray[np.float32]
    ) -> list[Event]:
        events = [(sequence, step) for step in postprocess(sequence, position, logits)]
        if events and events[-1][1].finish_reason is not None:
            self._slots.free(sequence)
        return events

    def _contain(
        self, sequences: Items[Sequence], work: Callable[[], list[Event] | None]
    ) -> list[Event]:
        """Returns the events of some work for these sequences. What it raises ends them alone.

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
        """Drops the slot's record too: NaN in the logits may come from NaN in its cache."""
        if sequence.slot is not None:
            self._prefixes.drop(sequence.slot)
        sequence.fault = fault
        return self._finish(sequence, FinishReason.FAULT)

    def _finish(self, sequence: Sequence, reason: FinishReason) -> Event:
        self._slots.free(sequence)
        return sequence, Step(None, reason, sequence.index)


class Slots:
    """The running sequences by slot, and which slot the next one gets."""

    def __init__(self, count: int, prefixes: PrefixCache) -> None:
        self._sequences: list[Sequence | None] = [None] * count
        self._prefixes = prefixes
        self._freed = [0] * count
        """When a slot was last freed: larger is later, 0 is never."""
        self._clock = itertools.count(1)

    @property
    def running(self) -> list[Sequence]:
        """The sequences that hold a slot, in order of slot."""
        return [sequence for sequence in self._sequences if sequence is not None]

    @property
    def full(self) -> bool:
        """Returns whether no slot is free."""
        return None not in self._sequences

    def assign(self, sequence: Sequence) -> None:
        """Gives the sequence a free slot.

        A decode call covers the slots from the first to the last that decodes, so the slot is
        one that widens it least. Among those it is the one that shares the longest prefix, if that
        is more than half of its content, otherwise the least recently used one. The baked prefix
        is kept anyway, so it does not count.
        """
        *shared, baked = self._prefixes.match(sequence.prompt).tolist()
        busy = [member.held_slot for member in self.running]

        def cost(slot: int) -> tuple[int, int, int]:
            width = max(*busy, slot) - min(*busy, slot) if busy else 0
            kept = shared[slot] - baked
            useful = 2 * kept > self._prefixes.cached_len(slot) - baked
            return width, -kept if useful else 0, self._freed[slot]

        free = (slot for slot, member in enumerate(self._sequences) if member is None)
        slot = min(free, key=cost)
        sequence.slot, self._sequences[slot] = slot, sequence

    def free(self, sequence: Sequence) -> None:
        """Frees the sequence's slot, if it has one. What its cache holds stays."""
        if sequence.slot is not None:
            self._sequences[sequence.slot] = None
            self._freed[sequence.slot] = next(self._clock)
            sequence.slot = None
