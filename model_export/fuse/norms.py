"""Fuses the seven nodes of an RMS norm into one SimplifiedLayerNormalization.

x * (1 / sqrt(mean(x ** 2) + epsilon)) * weight, with the weight on either side. Zhang and
Sennrich 2019, https://arxiv.org/abs/1910.07467.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from model_export.fuse.graphs import (
    attribute,
    constant,
    constant_rank,
    insert,
    only_user,
    producer,
    replace,
    scalar,
    tidy,
)


def fuse_norms(model: ir.Model) -> None:
    """Fuses every RMS norm over the last axis that has a constant weight."""
    for node in list(model.graph):
        if node.op_type == "Pow" and scalar(node.inputs[1]) == 2.0:
            _fuse(node)
    for node in list(model.graph):
        if node.op_type == "SimplifiedLayerNormalization":
            _norm_before_transpose(node)
    tidy(model)


def _fuse(square: ir.Node) -> None:
    source = square.inputs[0]
    mean = only_user(square.outputs[0])
    if mean is None or mean.op_type != "ReduceMean" or not _over_last_axis(mean):
        return
    epsilon = _only_user_of_type(mean.outputs[0], "Add")
    root = _only_user_of_type(epsilon.outputs[0], "Sqrt") if epsilon else None
    inverse = _inverse(root.outputs[0]) if root else None
    normal = _only_user_of_type(inverse.outputs[0], "Mul") if inverse else None
    scaled = _only_user_of_type(normal.outputs[0], "Mul") if normal else None
    if epsilon is None or normal is None or scaled is None or source not in normal.inputs:
        return
    weight = next((value for value in scaled.inputs if value is not normal.outputs[0]), None)
    number = scalar(epsilon.inputs[1])
    if constant_rank(weight) != 1 or number is None:
        return
    fused = insert(
        scaled,
        "SimplifiedLayerNormalization",
        [source, weight],
        {"axis": -1, "epsilon": number, "stash_type": 1},
        like=scaled.outputs,
    )
    replace(scaled.outputs[0], fused.outputs[0])


def _only_user_of_type(value: ir.Value, *op_types: str) -> ir.Node | None:
    user = only_user(value)
    return user if user is not None and user.op_type in op_types else None


def _inverse(root: ir.Value) -> ir.Node | None:
    """Finds 1 / root, as a Div or a Reciprocal."""
    node = _only_user_of_type(root, "Div", "Reciprocal")
    if node is not None and node.op_type == "Div" and scalar(node.inputs[0]) != 1.0:
        return None
    return node


def _over_last_axis(mean: ir.Node) -> bool:
    axes = constant(mean.inputs[1]) if len(mean.inputs) > 1 else None
    return (
        axes is not None
        and np.array_equal(axes.reshape(-1), [-1])
        and attribute(mean, "keepdims", 1) == 1
        and producer(mean.inputs[0], "Pow") is not None
    )


def _norm_before_transpose(norm: ir.Node) -> None:
    """Rewrites norm(Transpose(x)) as Transpose(norm(x)): Gemma 3's query norm.

    Only where the last axis stays. The Transpose then meets the one after the rotary embedding,
    and both go.
    """
    swapped = producer(norm.inputs[0], "Transpose")
    order = swapped.attributes["perm"].as_ints() if swapped is not None else [0]
    if swapped is None or order[-1] != len(order) - 1:
        return
    attributes = {name: value.value for name, value in norm.attributes.items()}
    source = swapped.inputs[0]
    inner = insert(
        norm,
        norm.op_type,
        [source, norm.inputs[1]],
        attributes,
        like=[source] if source is not None else [],
    )
    outer = insert(norm, "Transpose", inner.outputs, {"perm": order}, like=norm.outputs)
    replace(norm.outputs[0], outer.outputs[0])
