"""Prefix reuse: prompts that begin as something that is in the cache are not computed again.

What was written into a slot, a prompt and its answer, is remembered by its ids, also after its
sequence has ended. Before each chunk a sequence takes over what some slot, its own or another's,
holds further of its prompt than it has read itself: the keys and values of a position depend on the
ids up to it and on nothing else. So two prompts that are read side by side compute what they share
once, and the next turn of a conversation computes what is new in it.

A prompt's last token is always computed, for its logits. Where a slot has a state beside keys and
values, only all that it holds can be taken over.

What the export has baked (baked.py) is found as in a slot, after the last one.

Owned by the scheduler, which reports every call of the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

    from numpy.typing import NDArray

    from handlers.engine.batch import Batch, Runner
    from handlers.engine.sequence import Sequence


class PrefixReuse:
    """The ids that each slot's cache holds from its first position on."""

    def __init__(self, runner: Runner, *, slots: int, capacity: int) -> None:
        self._runner = runner
        baked = runner.baked  # as if one slot more held it, which no sequence ever gets
        self._ids = np.zeros((slots + 1, capacity), np.int64)
        self._ids[slots, : len(baked)] = baked
        self._lengths = np.zeros(slots + 1, np.int64)
        self._lengths[slots] = len(baked)

    def forget(self, slot: int) -> None:
        """Nothing is known of this slot's cache any more."""
        self._lengths[self._own(slot)] = 0

    def forget_all(self) -> None:
        """Nothing is known of any slot's cache; what is baked stays."""
        self._lengths[:-1] = 0

    def before(self, batch: Batch) -> None:
        """A call begins: what it writes over is no longer held."""
        lengths = self._lengths[batch.first_slot : batch.first_slot + batch.rows]
        starts = batch.seqlens_k + 1 - batch.query_seqlens
        np.minimum(lengths, starts, out=lengths, where=batch.query_seqlens > 0)

    def wrote(self, slot: int, start: int, ids: Items[int] | NDArray[np.int64]) -> None:
        """A call has computed these ids, at the positions from `start` on."""
        if self._lengths[self._own(slot)] == start:
            stop = start + len(ids)
            self._ids[slot, start:stop] = ids
            self._lengths[slot] = stop

    def held(self, slot: int) -> int:
        """Tokens that the slot's cache holds."""
        return int(self._lengths[slot])

    def shared(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many of `ids`, from the first on, each slot's cache holds, and the baked prefix.

        [slots + 1].
        """
        same = self._ids[:, : len(ids)] == ids
        same &= np.arange(len(ids)) < self._lengths[:, np.newaxis]
        shared = np.where(same.all(axis=1), len(ids), same.argmin(axis=1))
        if self._runner.recurrent:  # a state cannot be cut back: all that is held, or nothing
            shared[shared < self._lengths] = 0
        return shared

    def extend(self, sequence: Sequence) -> None:
        """Takes over what is held of the prompt.

        Not for a prompt whose logprobs are wanted: it needs the logits of all its positions.
        """
        limit = len(sequence.prompt) - 1
        if sequence.past >= limit or sequence.params.prompt_logprobs is not None:
            return
        slot, shared = sequence.held_slot, self.shared(sequence.prompt[:limit])
        source = int(shared.argmax())
        longest, own = int(shared[source]), int(shared[slot])
        if longest <= sequence.past:
            return
        if own < longest:
            self._copy(source, slot, own, longest)
        sequence.cached_tokens += longest - sequence.past
        sequence.past = longest

    def _own(self, slot: int) -> int:
        """The row of a slot that sequences get. -1 would be that of the baked prefix."""
        if not 0 <= slot < len(self._lengths) - 1:
            raise IndexError(f"No sequence can hold slot {slot}.")
        return slot

    def _copy(self, source: int, target: int, start: int, stop: int) -> None:
        self.forget(target)  # until all is copied and noted: either may fail in its middle
        self._runner.copy_prefix(source, target, start, stop)
        self._ids[target, start:stop] = self._ids[source, start:stop]
        self._lengths[target] = stop
