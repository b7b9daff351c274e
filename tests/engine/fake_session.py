"""A session whose logits are a known function of the ids in a slot.

It keeps, like a cache, the ids of every slot by position. So a wrong slot, a wrong past length, a
skipped or repeated token or a chunk out of order changes every id that follows.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from handlers.engine.batch import Batch
from handlers.errors import EngineFault

VOCAB = 64
EOS = 0
POISON = 63
"""A call that is given this id fails."""


class FakeSession:
    """Runs batches as a real session would, and records them."""

    def __init__(self, slots: int = 4, capacity: int = 256, vocab: int = VOCAB) -> None:
        self._cache = np.full((slots, capacity), -1, np.int64)
        self._vocab = vocab
        self.batches: list[Batch] = []
        self.threads: set[int] = set()

    def step(self, batch: Batch) -> NDArray[np.float32]:
        """As the graph contract says; raises EngineFault when it is given POISON."""
        self.batches.append(batch)
        self.threads.add(threading.get_ident())
        if (batch.input_ids == POISON).any():
            raise EngineFault("POISON")
        width = batch.input_ids.shape[1]
        rows = {}
        for row, valid in enumerate(batch.query_seqlens):
            slot, after = batch.first_slot + row, int(batch.seqlens_k[row]) + 1
            self._cache[slot, after - valid : after] = batch.input_ids[row, :valid]
            rows[row] = self._cache[slot, :after]
        wanted = [
            scripted_logits(rows[index // width].tolist(), self._vocab)
            for index in batch.logits_indices
        ]
        return np.array(wanted, np.float32).reshape(len(wanted), self._vocab)


def scripted_logits(ids: Items[int], vocab: int = VOCAB) -> NDArray[np.float32]:
    """Logits that depend on every id and its place. POISON is never likely."""
    digest = hashlib.blake2b(np.array(ids, np.int64).tobytes(), digest_size=8).digest()
    noise = np.random.Generator(np.random.PCG64(int.from_bytes(digest, "little")))
    logits = noise.standard_normal(vocab).astype(np.float32) * 3
    logits[POISON] = -50
    return logits


def greedy_answer(prompt: Items[int], max_tokens: int) -> list[int]:
    """What a sequence alone must answer, EOS not included."""
    ids = list(prompt)
    while len(ids) < len(prompt) + max_tokens:
        token = int(scripted_logits(ids).argmax())
        if token == EOS:
            break
        ids.append(token)
    return ids[len(prompt) :]
