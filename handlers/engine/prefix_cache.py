"""The prefix cache: prompts that begin as something that is in the cache are not computed again.

What was written into a slot, a prompt and its answer, is remembered by its ids, also after its
sequence has ended. Before each chunk a sequence takes over what some slot, its own or another's,
holds further of its prompt than is computed in its own: the keys and values of a position depend on
the ids up to it and on nothing else. So two prompts that are prefilled side by side compute what
they share once, and the next turn of a conversation computes what is new in it.

A prompt's last token is always computed, for its logits. Where a slot has a state beside keys and
values, only all that it holds can be taken over.

The baked prefix, the beginning of a prompt whose keys and values the export has computed, is found
as in one slot more, after the last:

    prefix.kv       ids, int64 [tokens], then of each cache tensor of the graph, in the graph's
                    order, what a slot with room for so many tokens has (kv_cache.py)
    manifest.json   how many tokens, and what they were computed with

The file is mapped: its pages are read ahead while the process starts, and the kernel may take them
back. One that was computed with other weights or by other kernels is refused: the process serves
without it, and says why. model_export/verify/prefix.py writes it.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from handlers.artifact.manifest import (
    CHAT_TEMPLATE,
    DRAFT_GRAPH,
    DRAFT_PREFIX,
    DRAFT_WEIGHTS,
    GRAPH,
    TOKENIZER,
    WEIGHTS,
    PrefixInfo,
)
from handlers.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from collections.abc import Sequence as Items
    from pathlib import Path

    from numpy.typing import NDArray

    from handlers.artifact.manifest import Artifact, Manifest
    from handlers.engine.batch import Batch, ModelRunner
    from handlers.engine.sequence import Sequence

log = logging.getLogger(__name__)

# With another tokenizer or template the values would be right, but no chat would begin with them.
# A draft model's files decide draft.kv, which is made and refused together with prefix.kv.
DECIDING_FILES = (GRAPH, WEIGHTS, DRAFT_GRAPH, DRAFT_WEIGHTS, TOKENIZER, CHAT_TEMPLATE)


class PrefixCache:
    """Records the ids that each slot's cache holds from its first position on."""

    def __init__(self, runner: ModelRunner, *, slots: int, capacity: int) -> None:
        self._runner = runner
        baked = runner.baked_ids  # as if one slot more held it, which no sequence ever gets
        self._ids = np.zeros((slots + 1, capacity), np.int64)
        self._ids[slots, : len(baked)] = baked
        self._lengths = np.zeros(slots + 1, np.int64)
        self._lengths[slots] = len(baked)

    def drop(self, slot: int) -> None:
        """Removes the record of a slot, whose cache is then taken to be empty."""
        self._lengths[self._checked(slot)] = 0

    def drop_all(self) -> None:
        """Removes the records of all slots; the baked prefix stays."""
        self._lengths[:-1] = 0

    def invalidate(self, batch: Batch) -> None:
        """Truncates the record of each slot that the batch is about to overwrite."""
        lengths = self._lengths[batch.first_slot : batch.first_slot + batch.rows]
        starts = batch.seqlens_k + 1 - batch.query_seqlens
        np.minimum(lengths, starts, out=lengths, where=batch.query_seqlens > 0)

    def record(self, slot: int, start: int, ids: Items[int] | NDArray[np.int64]) -> None:
        """Records ids that a call has computed, at the positions from `start` on."""
        if self._lengths[self._checked(slot)] == start:
            stop = start + len(ids)
            self._ids[slot, start:stop] = ids
            self._lengths[slot] = stop

    def cached_len(self, slot: int) -> int:
        """Returns the number of tokens in the slot's cache."""
        return int(self._lengths[slot])

    def match(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns how many of `ids`, from the first on, each slot's cache holds: [slots + 1].

        The last is the baked prefix.
        """
        same = self._ids[:, : len(ids)] == ids
        same &= np.arange(len(ids)) < self._lengths[:, np.newaxis]
        shared = np.where(same.all(axis=1), len(ids), same.argmin(axis=1))
        if self._runner.recurrent:  # a state cannot be cut back: all that is held, or nothing
            shared[shared < self._lengths] = 0
        return shared

    def reuse(self, sequence: Sequence) -> None:
        """Copies into the sequence's slot what any slot holds further of its prompt.

        Not for a prompt whose logprobs are wanted: it needs the logits of all its positions.
        """
        computed, limit = sequence.num_computed_tokens, len(sequence.prompt) - 1
        if computed >= limit or sequence.params.prompt_logprobs is not None:
            return
        held = self.copy_longest(sequence.held_slot, sequence.prompt[:limit], computed)
        sequence.cached_tokens += held - computed
        sequence.num_computed_tokens = held

    def copy_longest(self, slot: int, ids: NDArray[np.int64], known: int = 0) -> int:
        """Copies into the slot what any slot holds of `ids` beyond the first `known`, which it has.

        Returns how many of them it has then.
        """
        shared = self.match(ids)
        source = int(shared.argmax())
        longest, own = int(shared[source]), int(shared[self._checked(slot)])
        if longest <= known:
            return known
        if own < longest:
            self._copy(source, slot, own, longest)
        return longest

    def agreeing(self, slot: int, start: int, ids: NDArray[np.int64]) -> int:
        """Returns how many of `ids`, from the first on, the slot holds from `start` on."""
        held = self._ids[slot, start : min(start + len(ids), self._lengths[slot])]
        differing = np.flatnonzero(held != ids[: len(held)])
        return int(differing[0]) if len(differing) else len(held)

    def _checked(self, slot: int) -> int:
        """Checks that a sequence can hold the slot. -1 would be the row of the baked prefix."""
        if not 0 <= slot < len(self._lengths) - 1:
            raise IndexError(f"No sequence can hold slot {slot}.")
        return slot

    def _copy(self, source: int, target: int, start: int, stop: int) -> None:
        self.drop(target)  # until all is copied and noted: either may fail in its middle
        self._runner.copy_prefix(source, target, start, stop)
        self._ids[target, start:stop] = self._ids[source, start:stop]
        self._lengths[target] = stop


class BakedPrefix(msgspec.Struct, frozen=True, eq=False):
    """The ids of the baked prefix, and what a slot holds of them: mapped, read-only."""

    ids: NDArray[np.int64]
    values: NDArray[np.uint8]
    """The bytes of all tensors, one after the other: kv_cache.py knows their shapes."""


def open_prefix(
    artifact: Artifact, context_length: int, kernels: Callable[[], Mapping[str, str]]
) -> BakedPrefix | None:
    """Maps the artefact's prefix. None if it has none, or none that is valid here, with a warning.

    `kernels` returns the versions of what computes, and is called only if there is a prefix. Raises
    ArtifactError for a damaged file.
    """
    info = artifact.manifest.prefix
    if info is None:
        return None
    refusal = _refusal(info, prefix_identity(artifact.manifest, kernels()), context_length)
    if refusal is not None:
        log.warning("The baked prefix is not used: %s", refusal)
        return None
    return _map(artifact.prefix, info.tokens)


def open_draft_prefix(artifact: Artifact, prefix: BakedPrefix | None) -> BakedPrefix | None:
    """Maps the prefix as a draft model with weights of its own has it: the same ids as `prefix`.

    None where the model's is not used, or the artefact has none. Raises ArtifactError.
    """
    if prefix is None or DRAFT_PREFIX not in artifact.manifest.files:
        return None
    return _map(artifact.directory / DRAFT_PREFIX, len(prefix.ids))


def prefix_identity(manifest: Manifest, kernels: Mapping[str, str]) -> dict[str, str]:
    """Returns what decides the prefix's values: sha256 of files, versions of kernels, by name."""
    files = {name: manifest.files[name].sha256 for name in DECIDING_FILES if name in manifest.files}
    return files | dict(kernels)


def _refusal(info: PrefixInfo, present: dict[str, str], context_length: int) -> str | None:
    """Returns why the prefix is not valid here and what to do, or None if it is."""
    for name in sorted(info.computed_with.keys() | present.keys()):
        then, now = info.computed_with.get(name, "none"), present.get(name, "none")
        if then == now:
            continue
        if name in DECIDING_FILES:
            return f"{name} is not the one that it was computed with. Export the model again."
        return (
            f"it was computed with {name} {then}, and this process has {now}. Export the model "
            f"again with the version that serves."
        )
    if info.tokens >= context_length:
        return (
            f"it has {info.tokens:,} tokens, and KINDLING_CONTEXT_LENGTH is {context_length:,}. "
            f"Raise it."
        )
    return None


def _map(path: Path, tokens: int) -> BakedPrefix:
    try:
        with path.open("rb") as file:
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with contextlib.suppress(OSError):  # advice: read while the process starts
            memory.madvise(mmap.MADV_WILLNEED)
        ids = np.frombuffer(memory, np.int64, tokens)
        return BakedPrefix(ids, np.frombuffer(memory, np.uint8, offset=ids.nbytes))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path} cannot be mapped: {error}. Export the model again.") from None
