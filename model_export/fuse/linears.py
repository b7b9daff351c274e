"""Brings every linear layer into one form: MatMul(x, W) and Add(bias), with W constant.

torch writes MatMul(x, Transpose(W)), and for GPT-2's Conv1D a Gemm between two Reshapes. The
output projection, whose input is two-dimensional, becomes Gemm(x, W, transB=1) instead: it can
then read a tied embedding's matrix as it lies.
"""

from __future__ import annotations

import onnx_ir as ir

from model_export.fuse.graphs import (
    add_weight,
    attribute,
    constant_rank,
    dimensions,
    insert,
    only_user,
    producer,
    rename,
    replace,
    tidy,
    weight_of,
)
from model_export.weights import transposed


def plain_linears(model: ir.Model) -> None:
    """Brings every linear layer into its form."""
    for node in list(model.graph):
        if node.op_type == "MatMul":
            _transpose_weight(model, node)
        elif node.op_type == "Gemm":
            _unflatten(node)
    tidy(model)


def _transpose_weight(model: ir.Model, node: ir.Node) -> None:
    turned = producer(node.inputs[1], "Transpose")
    value = turned.inputs[0] if turned is not None else None
    weight = weight_of(value) if constant_rank(value) == 2 else None
    if value is None or weight is None:
        return
    if len(dimensions(node.inputs[0]) or ()) == 2:  # type: ignore[arg-type]
        gemm = insert(node, "Gemm", [node.inputs[0], value], {"transB": 1}, like=node.outputs)
        rename(gemm.outputs[0], node.outputs[0])
    else:
        node.replace_input_with(1, add_weight(model, f"{value.name}.T", transposed(weight)))


def _unflatten(node: ir.Node) -> None:
    """Drops the Reshapes of Reshape(x, [-1, K]), Gemm, Reshape(..., [batch, sequence, N])."""
    flat = producer(node.inputs[0], "Reshape")
    back = only_user(node.outputs[0])
    if flat is None or back is None or back.op_type != "Reshape" or _is_scaled(node):
        return
    source = flat.inputs[0]
    before, after = dimensions(source), dimensions(back.outputs[0])  # type: ignore[arg-type]
    if before is None or after is None or before[:-1] != after[:-1]:
        return
    if constant_rank(node.inputs[1]) is None:
        return
    product = insert(node, "MatMul", [source, node.inputs[1]], like=back.outputs)
    total = insert(node, "Add", [product.outputs[0], node.inputs[2]], like=back.outputs)
    replace(back.outputs[0], total.outputs[0])


def _is_scaled(node: ir.Node) -> bool:
    plain = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0}
    return len(node.inputs) != 3 or any(attribute(node, k, v) != v for k, v in plain.items())
