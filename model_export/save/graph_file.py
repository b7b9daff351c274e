"""Writes a graph without its weights: these stay where they lie, and the graph says where."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

_INLINE = 256
"""Bytes up to which a tensor stays in the graph: scalars and shapes that ONNX Runtime's own
optimisations want to see at once."""


def large_values(model: ir.Model) -> list[ir.Value]:
    """Returns the initialisers that lie in the file of weights."""
    values = model.graph.initializers.values()
    return [each for each in values if each.const_value and each.const_value.nbytes > _INLINE]


def write_graph(
    model: ir.Model, values: Sequence[ir.Value], tensors: Sequence[ir.TensorProtocol], path: Path
) -> None:
    """Writes the graph to `path` with `tensors` for `values`. The model itself keeps its own."""
    before = [value.const_value for value in values]
    try:
        for value, tensor in zip(values, tensors, strict=True):
            value.const_value = tensor
        ir.save(model, path)
    finally:
        for value, own in zip(values, before, strict=True):
            value.const_value = own
