"""Linear layers that read the same tensor become one, and a Split.

Query, key and value; gate and up. One large matrix product uses a core better than several
small ones, and prefill reads its input once. docs/graph.md has the measurement.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from model_export.fuse.graphs import (
    add_initializer,
    constant,
    insert,
    only_user,
    tidy,
    replace,
)


@dataclass(frozen=True, slots=True)
class _Linear:
    """MatMul(x, weight) and, where there is one, Add(bias)."""

    product: ir.Node
    bias: ir.Value | None
    result: ir.Value

    @property
    def width(self) -> int:
        return int(self.product.inputs[1].shape[-1])  # type: ignore[union-attr,index,arg-type]


def pack_projections(model: ir.Model) -> None:
    """Pack the linear layers of every tensor that feeds several."""
    groups: dict[ir.Value, list[_Linear]] = defaultdict(list)
    for node in model.graph:
        if node.op_type == "MatMul" and constant(node.inputs[1]) is not None:
            groups[node.inputs[0]].append(_linear(node))  # type: ignore[index]
    for linears in groups.values():
        if len(linears) > 1 and len({linear.bias is None for linear in linears}) == 1:
            _pack(model, linears)
    tidy(model)


def _linear(product: ir.Node) -> _Linear:
    total = only_user(product.outputs[0])
    if total is not None and total.op_type == "Add":
        for value in total.inputs:
            array = constant(value)
            if array is not None and array.ndim == 1:
                return _Linear(product, value, total.outputs[0])
    return _Linear(product, None, product.outputs[0])


def _pack(model: ir.Model, linears: list[_Linear]) -> None:
    first = linears[0].product
    before = linears[0].result.producer()
    weight = np.concatenate([constant(linear.product.inputs[1]) for linear in linears], axis=1)
    name = f"{first.name}/packed"
    packed = insert(first, "MatMul", [first.inputs[0], add_initializer(model, name, weight)])
    result = packed.outputs[0]
    if linears[0].bias is not None:
        bias = np.concatenate([constant(linear.bias) for linear in linears])
        result = insert(
            first, "Add", [result, add_initializer(model, f"{name}.bias", bias)]
        ).outputs[0]
    _shape_like(packed.outputs[0], linears[0].result, weight.shape[1])
    _shape_like(result, linears[0].result, weight.shape[1])
    sizes = np.array([linear.width for linear in linears], np.int64)
    split = insert(
        first,
        "Split",
        [result, add_initializer(model, f"{name}.sizes", sizes)],
        {"axis": -1},
        outputs=len(linears),
        like=[linear.result for linear in linears],
    )
    assert before is not None
    for linear, part in zip(linears, split.outputs, strict=True):
        replace(linear.result, part)


def _shape_like(value: ir.Value, like: ir.Value, width: int) -> None:
    value.dtype = like.dtype
    if like.shape is not None:
        value.shape = ir.Shape([*like.shape[:-1], width])
