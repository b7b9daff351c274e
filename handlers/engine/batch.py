"""The batches that the scheduler makes and the session runs.

The arrays are the control inputs of the graph (docs/graph.md), whose names the fields repeat.
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from handlers.engine.sequence import Sequence


class Batch(msgspec.Struct, frozen=True):
    """One call over the slots [first_slot : first_slot + B], S tokens wide.

    Rows of fewer than S tokens are padded on the right; a row of none is idle and its cache
    stays as it is.
    """

    first_slot: int
    input_ids: NDArray[np.int64]
    """[B, S]"""
    query_seqlens: NDArray[np.int32]
    """[B] tokens in each row that are not padding."""
    seqlens_k: NDArray[np.int32]
    """[B] tokens in each slot's cache after this call, less one."""
    logits_indices: NDArray[np.int64]
    """[N] positions row * S + column whose logits are wanted, in this order."""

    @property
    def rows(self) -> int:
        """Slots that the call covers, idle ones among them."""
        return len(self.input_ids)

    @property
    def columns(self) -> int:
        """Tokens that every row is computed for, padding included."""
        return int(self.input_ids.shape[1])


class ModelRunner(Protocol):
    """Runs batches over the slots: Session, or a test's."""

    @property
    def vocab_size(self) -> int:
        """Returns the number of ids that it takes, and of logits that it gives at a position."""

    @property
    def baked_ids(self) -> NDArray[np.int64]:
        """Ids whose keys and values lie in a slot after the last one, only to be copied from."""

    @property
    def recurrent(self) -> bool:
        """Returns whether a slot holds a state, which is that after its last position alone."""

    def step(self, batch: Batch) -> NDArray[np.float32]:
        """Returns logits [N, vocab], free to be overwritten, and valid until the next call.

        Raises EngineFault when the call fails.
        """

    def copy_prefix(self, source: int, target: int, start: int, stop: int) -> None:
        """Copies the keys and values at the positions [start : stop] from one slot to another.

        And the state, where there is one: it is that after `stop`.
        """


class Row(NamedTuple):
    """The ids that a call computes in one slot, after `past` ids that its cache holds."""

    slot: int
    past: int
    ids: Items[int]


def decode_batch(sequences: Items[Sequence], drafts: Items[Items[int]]) -> Batch:
    """Makes a batch of each sequence's newest token and its drafted ids, which may be none.

    `sequences` are in order of slot. The logits of all ids are wanted.
    """
    return ragged_batch(
        [
            Row(sequence.held_slot, sequence.num_computed_tokens, [sequence.last_token(), *draft])
            for sequence, draft in zip(sequences, drafts, strict=True)
        ]
    )


def ragged_batch(rows: Items[Row], logits: Literal["all", "last", "none"] = "all") -> Batch:
    """Makes a batch over the slots from the first to the last row's; those between are idle.

    `rows` are in order of slot. `logits`: after which ids of each row they are wanted.
    """
    first = rows[0].slot
    count = rows[-1].slot - first + 1
    columns = max(len(row.ids) for row in rows)
    input_ids = np.zeros((count, columns), np.int64)
    query_seqlens = np.zeros(count, np.int32)
    seqlens_k = np.zeros(count, np.int32)
    indices: list[int] = []
    for slot, past, ids in rows:
        place, length = slot - first, len(ids)
        input_ids[place, :length] = ids
        query_seqlens[place] = length
        seqlens_k[place] = past + length - 1
        stop = place * columns + length
        indices += range(stop - {"all": length, "last": 1, "none": 0}[logits], stop)
    return Batch(first, input_ids, query_seqlens, seqlens_k, np.array(indices, np.int64))


def prefill_batch(sequence: Sequence, limit: int) -> Batch:
    """Makes a batch of the next tokens of one sequence, `limit` at most."""
    start = sequence.num_computed_tokens
    stop = min(start + limit, sequence.num_tokens)
    wanted = sequence.scored_positions(stop)
    return Batch(
        first_slot=sequence.held_slot,
        input_ids=token_ids(sequence, start, stop)[np.newaxis],
        query_seqlens=np.array([stop - start], np.int32),
        seqlens_k=np.array([stop - 1], np.int32),
        logits_indices=np.arange(wanted.start - start, wanted.stop - start),
    )


def token_ids(sequence: Sequence, start: int, stop: int) -> NDArray[np.int64]:
    """Returns the ids of prompt and answer between two positions."""
    prompted = len(sequence.prompt)
    tokens = sequence.tokens[max(0, start - prompted) : max(0, stop - prompted)]
    return np.concatenate([sequence.prompt[start:stop], np.array(tokens, np.int64)])
