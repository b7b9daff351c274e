"""Gives back the tensors of a graph that is saved, to be copied into another a part at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from handlers.artifact.manifest import GRAPH
from model_export.lazy_tensors import Arrays, GroupTensor, TensorGroup


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """A tensor in a file of weights."""

    path: Path
    offset: int
    dtype: np.dtype[np.generic]
    shape: tuple[int, ...]

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Reads some entries of the first axis."""
        first, last, _ = slice(start, stop).indices(self.shape[0])
        entry = math.prod(self.shape[1:])
        offset = self.offset + first * entry * self.dtype.itemsize
        count = max(last - first, 0) * entry
        return np.fromfile(self.path, self.dtype, count, offset=offset).reshape(-1, *self.shape[1:])


def written_tensors(directory: Path) -> dict[str, ir.TensorProtocol]:
    """Returns the tensors of the graph in `directory` by their names.

    Those that have one place there have one again when they are saved.
    """
    groups: dict[int, TensorGroup] = {}
    found: dict[str, ir.TensorProtocol] = {}
    for name, value in ir.load(directory / GRAPH).graph.initializers.items():
        tensor = value.const_value
        if isinstance(tensor, ir.ExternalTensor):
            tensor = _lazy(tensor, groups)
        if tensor is not None:
            tensor.name = name
            found[name] = tensor
    return found


def _lazy(tensor: ir.ExternalTensor, groups: dict[int, TensorGroup]) -> GroupTensor:
    offset, shape = tensor.offset or 0, tuple(tensor.shape.numpy())
    rows = WrittenRows(Path(tensor.path), offset, np.dtype(tensor.dtype.numpy()), shape)
    group = groups.setdefault(offset, TensorGroup(rows, 1, _as_they_are))
    return GroupTensor(group, 0, tensor.dtype, shape)


def _as_they_are(rows: NDArray[np.generic]) -> Arrays:
    return (rows,)
