"""Opens the weights of a model folder by the names that its files give them, reading none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from model_export.fetch.pickled_weights import PICKLED, open_pickled
from model_export.fetch.safetensors_file import open_safetensors
from model_export.reporting import ExportError
from model_export.weights import Weight

SAFETENSORS = "*.safetensors"


class CheckpointTensor(Weight, Protocol):
    """A tensor of a model's files: a Weight where it holds floats."""

    @property
    def is_float(self) -> bool:
        """Returns whether the tensor holds floats."""

    def stored(self, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Returns rows in the type of the file, which is one of numpy's."""


def open_checkpoint(directory: Path) -> Mapping[str, CheckpointTensor]:
    """Returns a folder's tensors by name. Raises ExportError for files that cannot be read.

    Pickled weights are opened only where there are no others.
    """
    if any(directory.glob(SAFETENSORS)):
        return _open_all(_files(directory, "model.safetensors", SAFETENSORS), open_safetensors)
    return _open_all(_files(directory, "pytorch_model.bin", PICKLED), open_pickled)


def _open_all(
    paths: list[Path], open_file: Callable[[Path], Mapping[str, CheckpointTensor]]
) -> dict[str, CheckpointTensor]:
    found: dict[str, CheckpointTensor] = {}
    for path in paths:
        found |= open_file(path)
    return found


def _files(directory: Path, whole: str, pattern: str) -> list[Path]:
    """Lists the one file, or those of the index; where there is neither, all that match.

    transformers reads the same; of the last, nothing.
    """
    if (directory / whole).is_file():
        return [directory / whole]
    index = directory / f"{whole}.index.json"
    if not index.is_file():
        return sorted(directory.glob(pattern))
    try:
        content = msgspec.json.decode(index.read_bytes(), type=_Index)
    except (OSError, msgspec.DecodeError) as error:
        raise ExportError(f"{index.name} cannot be read: {error}. Download it again.") from None
    names = sorted(set(content.weight_map.values()))
    missing = [name for name in names if not _is_inside(directory, name)]
    if missing:
        raise ExportError(
            f"{index.name} names {', '.join(missing[:3])}, which the folder does not have. "
            f"Download the model again."
        )
    return [directory / name for name in names]


def _is_inside(directory: Path, name: str) -> bool:
    return Path(name).name == name and (directory / name).is_file()


class _Index(msgspec.Struct):
    """Says which file has each tensor of a sharded model."""

    weight_map: dict[str, str]
