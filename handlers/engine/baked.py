"""The baked prefix: a prompt's beginning whose keys and values the export has computed.

    prefix.kv       ids, int64 [tokens], then of each cache tensor of the graph, in the graph's
                    order, what a slot with room for so many tokens has (kv_cache.py)
    manifest.json   how many tokens, and what they were computed with

The file is mapped: its pages are read ahead while the process starts, and the kernel may take them
back. What was computed with other weights or by other kernels is
refused: the process serves without it, and says why. Knows no graph and no text. Written by
model_export/prefix.py, opened by the engine.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from handlers.artifact.manifest import CHAT_TEMPLATE, GRAPH, TOKENIZER, WEIGHTS, PrefixInfo
from handlers.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from handlers.artifact.manifest import Artifact, Manifest

log = logging.getLogger(__name__)

# With another tokenizer or template the values would be right, but no chat would begin with them.
DECIDING_FILES = (GRAPH, WEIGHTS, TOKENIZER, CHAT_TEMPLATE)


class BakedPrefix(msgspec.Struct, frozen=True, eq=False):
    """What is mapped, read-only."""

    ids: NDArray[np.int64]
    values: NDArray[np.uint8]
    """The bytes of all tensors, one after the other: kv_cache.py knows their shapes."""


def describe(ids: list[int], manifest: Manifest, kernels: Mapping[str, str]) -> PrefixInfo:
    """The manifest's entry for a prefix computed with these files and versions of packages."""
    return PrefixInfo(tokens=len(ids), computed_with=_identity(manifest, kernels))


def write_prefix(path: Path, ids: list[int], tensors: Iterable[NDArray[np.floating]]) -> None:
    """`tensors`: what a slot holds of the ids, in the graph's order."""
    with path.open("wb") as file:
        file.write(np.array(ids, np.int64).tobytes())
        for tensor in tensors:
            file.write(tensor.tobytes())


def open_prefix(
    artifact: Artifact, context_length: int, kernels: Callable[[], Mapping[str, str]]
) -> BakedPrefix | None:
    """The artefact's prefix, if it has one that holds here; else a warning says why it does not.

    `kernels` gives the versions of what computes, and is asked only if there is a prefix. Raises
    ArtifactError for a damaged file.
    """
    info = artifact.manifest.prefix
    if info is None:
        return None
    refusal = _refusal(info, _identity(artifact.manifest, kernels()), context_length)
    if refusal is not None:
        log.warning("The baked prefix is not used: %s", refusal)
        return None
    return _map(artifact.prefix, info.tokens)


def _identity(manifest: Manifest, kernels: Mapping[str, str]) -> dict[str, str]:
    files = {name: manifest.files[name].sha256 for name in DECIDING_FILES if name in manifest.files}
    return files | dict(kernels)


def _refusal(info: PrefixInfo, present: dict[str, str], context_length: int) -> str | None:
    """What is wrong and what to do, if something is."""
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
