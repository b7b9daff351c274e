"""A session whose logits are a known function of the ids in a slot.

It keeps, like a cache, the ids of every slot by position. So a wrong slot, a wrong past length, a
skipped or repeated token or a chunk out of order changes every id that follows.
"""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Sequence as Items
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.engine.batch import Batch
from handlers.engine.engine import Engine, Generation
from handlers.engine.params import FinishReason, SamplingParams
from handlers.engine.sampling import Sampler
from handlers.engine.sequence import Sequence
from handlers.errors import EngineFault

VOCAB = 64
EOS = 0
NAN = 62
"""A slot with this id in it has no logits that are numbers."""
POISON = 63
"""A call that is given this id fails."""
CONTEXT = 256


class FakeSession:
    """Runs batches as a real session would, and records them."""

    recurrent = False
    vocab_size = VOCAB

    def __init__(self, slots: int = 4, capacity: int = CONTEXT, baked: Items[int] = ()) -> None:
        self._cache = np.full((slots + 1, capacity), -1, np.int64)
        self._cache[slots, : len(baked)] = baked
        self.baked_ids = np.array(baked, np.int64)
        self.batches: list[Batch] = []
        self.copies: list[tuple[int, int, int, int]] = []
        self.threads: set[int] = set()

    def step(self, batch: Batch) -> NDArray[np.float32]:
        self.batches.append(batch)
        self.threads.add(threading.get_ident())
        if (batch.input_ids == POISON).any():
            raise EngineFault("The call was poisoned.")
        width = batch.input_ids.shape[1]
        rows = [self._row(batch, row, int(valid)) for row, valid in enumerate(batch.query_seqlens)]
        wanted = [
            self.logits(rows[index // width][: _past(batch, index // width) + index % width + 1])
            for index in batch.logits_indices
        ]
        return np.array(wanted, np.float32).reshape(len(wanted), VOCAB)

    def copy_prefix(self, source: int, target: int, start: int, stop: int) -> None:
        self.copies.append((source, target, start, stop))
        self._cache[target, start:stop] = self._cache[source, start:stop]

    def logits(self, ids: Items[int]) -> NDArray[np.float32]:
        """Those that follow the ids of a slot."""
        return scripted_logits(ids)

    def _row(self, batch: Batch, row: int, valid: int) -> list[int]:
        """Writes the row's tokens into its slot; the ids that it then holds."""
        after = int(batch.seqlens_k[row]) + 1
        ids = self._cache[batch.first_slot + row]
        if valid:
            past = after - valid
            assert after <= len(ids), "the tokens do not fit in the slot"
            ids[past:after] = batch.input_ids[row, :valid]
        held: list[int] = ids[:after].tolist()
        return held


class RecurrentSession(FakeSession):
    """Its slots have a state too: that after the last id that was computed or copied, only."""

    recurrent = True

    def __init__(self, slots: int = 4, capacity: int = CONTEXT, baked: Items[int] = ()) -> None:
        super().__init__(slots, capacity, baked)
        self._ends = [0] * slots + [len(baked)]

    def copy_prefix(self, source: int, target: int, start: int, stop: int) -> None:
        assert stop == self._ends[source], "the state is that of another position"
        super().copy_prefix(source, target, start, stop)
        self._ends[target] = stop

    def _row(self, batch: Batch, row: int, valid: int) -> list[int]:
        held = super()._row(batch, row, valid)
        if valid:
            slot = batch.first_slot + row
            assert _past(batch, row) in (0, self._ends[slot]), "the state is not that of the past"
            self._ends[slot] = len(held)
        return held


def _past(batch: Batch, row: int) -> int:
    return int(batch.seqlens_k[row]) + 1 - int(batch.query_seqlens[row])


class GatedSession(FakeSession):
    """Waits before each call until the test allows it one."""

    def __init__(self) -> None:
        super().__init__()
        self.allowed = threading.Semaphore(0)

    def step(self, batch: Batch) -> NDArray[np.float32]:
        self.allowed.acquire()
        return super().step(batch)


def scripted_logits(ids: Items[int]) -> NDArray[np.float32]:
    """Logits that depend on every id and its place. NAN and POISON are never likely."""
    if NAN in ids:
        return np.full(VOCAB, np.nan, np.float32)
    digest = hashlib.blake2b(np.array(ids, np.int64).tobytes(), digest_size=8).digest()
    noise = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
    logits = noise.standard_normal(VOCAB).astype(np.float32) * 3
    logits[[NAN, POISON]] = -50
    return logits


def greedy_answer(prompt: Items[int], max_tokens: int) -> list[int]:
    """Returns what a sequence alone must answer, without the eos id that may end it."""
    ids = list(prompt)
    while len(ids) < len(prompt) + max_tokens:
        token = int(scripted_logits(ids).argmax())
        if token == EOS:
            break
        ids.append(token)
    return ids[len(prompt) :]


def fake_engine(session: FakeSession | None = None, **changes: Any) -> Engine:
    """An engine over a fake session, with small limits."""
    limits: dict[str, Any] = {
        "eos_token_ids": [EOS],
        "slots": 4,
        "context_length": CONTEXT,
        "prefill_chunk": 8,
        "prompt_lookup": True,
        "queue_limit": 32,
    }
    return Engine(session or FakeSession(), **limits | changes)


def greedy(max_tokens: int = 20, **changes: Any) -> SamplingParams:
    return SamplingParams(max_tokens, temperature=0.0, **changes)


def sequence(prompt: list[int], max_tokens: int = 10, deadline: float = math.inf) -> Sequence:
    ids, params = np.array(prompt, np.int64), greedy(max_tokens)
    eos = frozenset([EOS])
    return Sequence(
        prompt=ids,
        params=params,
        sampler=Sampler(params, ids, eos),
        eos_token_ids=eos,
        max_new_tokens_by_context=CONTEXT - len(prompt),
        deadline=deadline,
    )


def read(generation: Generation) -> tuple[list[int], FinishReason | None]:
    """Ids and finish reason of a generation, by iterating it inline."""
    steps = list(generation)
    return [s.token_id for s in steps if s.token_id is not None], steps[-1].finish_reason


async def read_async(generation: Generation) -> tuple[list[int], FinishReason | None]:
    """The same on an event loop."""
    steps = [step async for step in generation]
    return [s.token_id for s in steps if s.token_id is not None], steps[-1].finish_reason
