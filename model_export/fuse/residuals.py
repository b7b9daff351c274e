"""The residual Add in front of a LayerNormalization becomes a Sum, which keeps the two apart.

ONNX Runtime fuses Add and LayerNormalization into SkipLayerNormalization when it loads a graph, and
with many rows that kernel is the slower way: 4.0 ms for 1,024 rows of 384 on one thread, where Sum
and LayerNormalization together take 0.7 ms (onnxruntime 1.32.0). It does not look for a Sum. For
encoders; a decoder's single rows are better off fused (skip_norms.py).
"""

from __future__ import annotations

import onnx_ir as ir

from model_export.fuse.graphs import constant, insert, producer, replace, tidy


def sum_residuals(model: ir.Model) -> None:
    """Wherever a LayerNormalization reads the sum of two tensors."""
    for node in list(model.graph):
        if node.op_type == "LayerNormalization":
            total = producer(node.inputs[0], "Add")
            if total is not None and not any(constant(value) is not None for value in total.inputs):
                plain = insert(total, "Sum", list(total.inputs), like=total.outputs)
                replace(total.outputs[0], plain.outputs[0])
    tidy(model)
