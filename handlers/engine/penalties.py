"""Repetition, frequency and presence penalties, applied to the ids seen and to no other.

Knows one sequence's ids. Called by the sampler, and only for requests that ask for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from handlers.engine.params import SamplingParams


def wanted(params: SamplingParams) -> bool:
    """Whether these parameters penalise anything."""
    return (
        params.repetition_penalty != 1.0
        or params.frequency_penalty != 0.0
        or params.presence_penalty != 0.0
    )


class Penalties:
    """Counts a sequence's ids and lowers their logits.

    Repetition covers prompt and answer: a positive logit is divided, a negative one
    multiplied (CTRL, https://arxiv.org/abs/1909.05858). Frequency and presence cover the
    answer: https://platform.openai.com/docs/api-reference/chat/create.
    """

    def __init__(self, params: SamplingParams, prompt: NDArray[np.int64]) -> None:
        self._params = params
        self._ids = np.unique(prompt)
        self._counts = np.zeros(len(self._ids), np.float32)
        self._index = {int(token): index for index, token in enumerate(self._ids)}

    def accept(self, token_id: int) -> None:
        """Counts one id of the answer."""
        index = self._index.setdefault(token_id, len(self._index))
        if index == len(self._ids):
            self._ids = np.append(self._ids, token_id)
            self._counts = np.append(self._counts, np.float32(0))
        self._counts[index] += 1

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Changes `logits` [vocab] in place."""
        params = self._params
        seen = logits[self._ids]
        repetition = np.float32(params.repetition_penalty)
        seen = np.where(seen > 0, seen / repetition, seen * repetition)
        seen -= np.float32(params.frequency_penalty) * self._counts
        seen -= np.float32(params.presence_penalty) * (self._counts > 0)
        logits[self._ids] = seen
