"""Prompt lookup: guesses that a sequence goes on as it did when its last ids came before.

Answers that copy (summaries, quotes, edited code) repeat runs of ids of their prompt. So what
followed the last ids when they came before is a good guess at what follows now, and it costs no
second model: https://github.com/apoorvumang/prompt-lookup-decoding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from handlers.engine.params import MAX_DRAFT_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

    from numpy.typing import NDArray

# How much the latest drafted id counts among those before it. A copy that begins is believed after
# four ids, one that has ended is given up after three.
LATEST_WEIGHT = 0.2


def propose(ids: NDArray[np.int64]) -> list[int]:
    """Returns what followed the last three ids, otherwise two, when they came before the last time.

    None or MAX_DRAFT_TOKENS ids. An occurrence that ends fewer than those ago is taken to be the
    period of a repetition.
    """
    if len(ids) < 3:
        return []
    ends = np.flatnonzero(ids[1:-1] == ids[-1]) + 1
    ends = ends[ids[ends - 1] == ids[-2]]
    if not len(ends):
        return []
    longer = ends[(ids[ends - 2] == ids[-3]) & (ends > 1)]
    end = int((longer if len(longer) else ends)[-1])
    draft: list[int] = np.resize(ids[end + 1 :], MAX_DRAFT_TOKENS).tolist()
    return draft


class NgramProposer:
    """The drafts of one sequence, and the rate at which its drafted ids come true."""

    def __init__(self, prompt: NDArray[np.int64], max_new_tokens: int) -> None:
        self._ids = np.empty(len(prompt) + max_new_tokens, np.int64)
        self._ids[: len(prompt)] = prompt
        self._known = self._prompt_length = len(prompt)
        self.draft: list[int] = []
        self.hit_rate = 0.5
        """How likely a drafted id is to come true when those before it have."""

    def update(self, answer: Items[int]) -> None:
        """Judges the last draft by the answer as it is now, and makes the next."""
        new = answer[self._known - self._prompt_length :]
        for token_id, drafted in zip(new, self.draft, strict=False):
            self.hit_rate += LATEST_WEIGHT * ((token_id == drafted) - self.hit_rate)
        self._ids[self._known : self._known + len(new)] = new
        self._known += len(new)
        self.draft = propose(self._ids[: self._known])
