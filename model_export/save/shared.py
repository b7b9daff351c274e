"""Writes a graph whose large tensors lie in the file of weights of another graph beside it.

Each is found by its name. That it is the same tensor is looked at, not believed: its type, its
shape, and its first entry, or all of what is in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from handlers.artifact.manifest import GRAPH
from model_export.lazy_tensors import Arrays, GroupTensor, WeightTensor
from model_export.reporting import ExportError
from model_export.save.graph_file import large_values, write_graph


def save_shared(model: ir.Model, path: Path) -> None:
    """Writes `model` to `path`, beside a saved graph that has all of its weights, and no weights.

    Raises ExportError where one of them is not that graph's.
    """
    saved = ir.load(path.with_name(GRAPH)).graph.initializers
    values, entries = large_values(model), _FirstEntries()
    tensors: list[ir.ExternalTensor] = []
    for value in values:
        name, ours = str(value.name), value.const_value
        found = saved[name].const_value if name in saved else None
        if not isinstance(found, ir.ExternalTensor) or ours is None:
            raise _differs(name, f"{GRAPH} has no weight of this name")
        if (found.dtype, found.shape) != (ours.dtype, ours.shape):
            raise _differs(name, f"it is {_kind(found)} in {GRAPH}, and {_kind(ours)} here")
        if not entries.agree(ours, found):
            raise _differs(name, f"it has other values in {GRAPH}")
        tensors.append(found)
    write_graph(model, values, tensors, path)


class _FirstEntries:
    """Compares tensors by the first entry of their first axis where they are not in memory."""

    def __init__(self) -> None:
        self._computed: dict[int, Arrays] = {}

    def agree(self, ours: ir.TensorProtocol, found: ir.ExternalTensor) -> bool:
        theirs: NDArray[Any] = found.numpy()
        if isinstance(ours, GroupTensor):
            return _bytes(self._of(ours)[ours.index][:1]) == _bytes(theirs[:1])
        if isinstance(ours, WeightTensor):
            return _bytes(ours.weight.read(0, 1)) == _bytes(theirs[:1])
        return _bytes(ours.numpy()) == _bytes(theirs)

    def _of(self, tensor: GroupTensor) -> Arrays:
        """Computes the first entries of a group's tensors, once."""
        group = tensor.group
        if id(group) not in self._computed:
            rows = group.weight.read(0, group.rows_per_entry)
            self._computed[id(group)] = group.compute(rows)
        return self._computed[id(group)]


def _bytes(array: NDArray[Any]) -> bytes:
    return np.ascontiguousarray(array).tobytes()


def _kind(tensor: ir.TensorProtocol) -> str:
    return f"{tensor.dtype.name.lower()} {list(tensor.shape.numpy())}"


def _differs(name: str, how: str) -> ExportError:
    return ExportError(
        f"[draft] layers: the weight {name} of the first layers is not that of the model: {how}. "
        f"This kind of model cannot draft with layers of its own: leave the table out, or name a "
        f"recipe."
    )
