"""Packs the query, key and value projections of an attention node into one linear layer.

GroupQueryAttention reads [batch, sequence, (heads + 2 * kv_heads) * head_dim] in place of its
first three inputs, so one large matrix product serves, and nothing has to be split. Gate and up
stay two: the Split that packing them needs costs more than the product saves
(docs/graph.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import onnx_ir as ir

from model_export.fuse.graphs import (
    add_weight,
    constant_rank,
    insert,
    producer,
    tidy,
    weight_of,
)
from model_export.weights import StackedWeight, Weight, transposed


@dataclass(frozen=True, slots=True)
class _Linear:
    """A linear layer: MatMul(source, weight) and, where there is one, Add(bias)."""

    source: ir.Value
    weight: ir.Value
    bias: ir.Value | None


def pack_projections(model: ir.Model) -> None:
    """Packs wherever the three linear layers read one tensor, with a bias each or without."""
    for node in list(model.graph):
        if node.op_type == "GroupQueryAttention":
            linears = [linear for linear in map(_linear, node.inputs[:3]) if linear is not None]
            sources = {linear.source for linear in linears}
            biased = {linear.bias is not None for linear in linears}
            if len(linears) == 3 and len(sources) == 1 and len(biased) == 1:
                _pack(model, node, linears)
    tidy(model)


def _linear(value: ir.Value | None) -> _Linear | None:
    total, bias = producer(value, "Add"), None
    if total is not None:
        bias = next((v for v in total.inputs if constant_rank(v) is not None), None)
        value = next((v for v in total.inputs if v is not bias), None)
    product = producer(value, "MatMul")
    if product is None or constant_rank(product.inputs[1]) != 2:
        return None
    if (total is None) != (bias is None):
        return None
    return _Linear(product.inputs[0], product.inputs[1], bias)  # type: ignore[arg-type]


def _pack(model: ir.Model, node: ir.Node, linears: list[_Linear]) -> None:
    source = linears[0].source
    weight = transposed(_stack([transposed(_weight(linear.weight)) for linear in linears]))
    name = f"{node.name}/projection"
    packed = insert(node, "MatMul", [source, add_weight(model, name, weight)]).outputs[0]
    _set_width(packed, source, weight.shape[1])
    if linears[0].bias is not None:
        bias = _stack([_weight(linear.bias) for linear in linears])
        addend = add_weight(model, f"{name}.bias", bias)
        packed = insert(node, "Add", [packed, addend], like=[packed]).outputs[0]
    for index, value in enumerate((packed, None, None)):
        node.replace_input_with(index, value)


def _weight(value: ir.Value | None) -> Weight:
    """Returns what `_linear` found to be a constant."""
    return cast("Weight", weight_of(value))


def _stack(parts: list[Weight]) -> Weight:
    return StackedWeight(tuple(parts))


def _set_width(value: ir.Value, like: ir.Value, width: int) -> None:
    value.type = like.type
    if like.shape is not None:
        value.shape = ir.Shape([*like.shape[:-1], width])
