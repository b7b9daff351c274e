"""Prompt lookup: how a sequence may go on, read from its own ids.

Answers that copy (summaries, quotes, edited code) repeat runs of ids of their prompt. So what
followed the last ids when they came before is a good guess at what follows now, and it costs no
second model: https://github.com/apoorvumang/prompt-lookup-decoding. A guess is called a draft.

Knows one sequence's ids and how good its drafts have been; not what a draft costs. Owned by
drafting.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

    from numpy.typing import NDArray

LONGEST_DRAFT = 3

# How much the latest drafted id counts among those before it. A copy that begins is believed after
# four ids, one that has ended is given up after three.
LATEST = 0.2


def look_up(ids: NDArray[np.int64]) -> list[int]:
    """What followed the latest earlier occurrence of the last three ids, else of the last two.

    None or LONGEST_DRAFT ids. An occurrence that ends fewer than those ago is taken to be the
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
    draft: list[int] = np.resize(ids[end + 1 :], LONGEST_DRAFT).tolist()
    return draft


class PromptLookup:
    """One sequence's ids, its present draft, and how many of the earlier ones came true."""

    def __init__(self, prompt: NDArray[np.int64], longest_answer: int) -> None:
        self._ids = np.empty(len(prompt) + longest_answer, np.int64)
        self._ids[: len(prompt)] = prompt
        self._known = self._prompt_length = len(prompt)
        self.draft: list[int] = []
        self.hit_rate = 0.5
        """How likely a drafted id is to come true when those before it have."""

    def read(self, answer: Items[int]) -> None:
        """Goes on to the answer as it is now: judges the last draft by it and makes the next."""
        new = answer[self._known - self._prompt_length :]
        for token_id, drafted in zip(new, self.draft, strict=False):
            self.hit_rate += LATEST * ((token_id == drafted) - self.hit_rate)
        self._ids[self._known : self._known + len(new)] = new
        self._known += len(new)
        self.draft = look_up(self._ids[: self._known])
