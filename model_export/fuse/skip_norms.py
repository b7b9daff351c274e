"""Fuses a residual Add and the norm after it, or keeps ONNX Runtime from doing so.

Decoders: both become one Skip*LayerNormalization, whose fourth output is the sum that the next
residual needs.

Encoders: the Add becomes a Sum. ONNX Runtime fuses Add and LayerNormalization into
SkipLayerNormalization when it loads a graph, and with many rows that kernel is the slower way:
4.0 ms for 1,024 rows of 384 on one thread, where Sum and LayerNormalization together take 0.7 ms
(onnxruntime 1.32.0). It does not look for a Sum. A decoder's single rows are better off fused.
"""

from __future__ import annotations

import onnx_ir as ir

from model_export.fuse.graphs import (
    MICROSOFT,
    attribute,
    constant_rank,
    dimensions,
    insert,
    producer,
    replace,
    tidy,
)

_FUSED = {
    "SimplifiedLayerNormalization": "SkipSimplifiedLayerNormalization",
    "LayerNormalization": "SkipLayerNormalization",
}


def fuse_skip_norms(model: ir.Model) -> None:
    """Fuses every norm over the last axis whose input is the sum of two tensors of one shape."""
    for node in list(model.graph):
        if node.op_type in _FUSED and attribute(node, "axis", -1) == -1:
            total = producer(node.inputs[0], "Add")
            if total is not None and _same_shape(total):
                _fuse(total, node)
    tidy(model)


def _same_shape(total: ir.Node) -> bool:
    left, right = (dimensions(value) for value in total.inputs)  # type: ignore[arg-type]
    return left is not None and left == right and None not in left and len(left) in (2, 3)


def _fuse(total: ir.Node, norm: ir.Node) -> None:
    fused = insert(
        norm,
        _FUSED[norm.op_type],
        [*total.inputs, *norm.inputs[1:]],
        {"epsilon": float(attribute(norm, "epsilon", 1e-5))},
        domain=MICROSOFT,
        outputs=4,
        like=norm.outputs,
    )
    fused.outputs[3].shape, fused.outputs[3].type = total.outputs[0].shape, norm.outputs[0].type
    replace(norm.outputs[0], fused.outputs[0])
    replace(total.outputs[0], fused.outputs[3])


def sum_residuals(model: ir.Model) -> None:
    """Makes a Sum of every residual Add that a LayerNormalization reads."""
    for node in list(model.graph):
        if node.op_type == "LayerNormalization":
            total = producer(node.inputs[0], "Add")
            if total is not None and all(constant_rank(value) is None for value in total.inputs):
                plain = insert(total, "Sum", list(total.inputs), like=total.outputs)
                replace(total.outputs[0], plain.outputs[0])
    tidy(model)
