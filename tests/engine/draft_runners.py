"""Draft models whose guesses come true as often as a test says."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from collections.abc import Sequence as Items
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handlers.engine.draft_model import DraftModel
from tests.engine.fake_session import CONTEXT, VOCAB, FakeSession

Logits = Callable[[Items[int]], NDArray[np.float32]]


class ScriptedDraft(FakeSession):
    """Guesses the id that the model likes most, with a probability, and otherwise the next one."""

    def __init__(
        self,
        model: FakeSession,
        acceptance: float,
        *,
        capacity: int = CONTEXT,
        baked: Items[int] = (),
        shares_cache: bool = False,
    ) -> None:
        super().__init__(len(model._cache) - 1, capacity, baked)
        self._model = model
        self._acceptance = acceptance
        if shares_cache:
            self._cache = model._cache

    def logits(self, ids: Items[int]) -> NDArray[np.float32]:
        logits = np.zeros(self.vocab_size, np.float32)
        likely = int(self._model.logits(ids).argmax())
        digest = hashlib.blake2b(np.array(ids, np.int64).tobytes(), digest_size=4, salt=b"draft")
        right = int.from_bytes(digest.digest(), "little") < self._acceptance * 2**32
        logits[likely if right else (likely + 1) % (VOCAB - 2)] = 9
        return logits


def draft_model(runner: FakeSession, slots: int = 4, **changes: Any) -> DraftModel:
    """A draft model over a fake runner."""
    options: dict[str, Any] = {
        "capacity": runner._cache.shape[1],
        "prefill_chunk": 8,
        "shares_cache": False,
        "acceptance": 0.7,
    }
    return DraftModel(runner, slots=slots, **options | changes)
