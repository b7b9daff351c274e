"""Attention reads query, key and value as the one tensor that they are parts of.

GroupQueryAttention takes [batch, sequence, (heads + 2 * kv_heads) * head_dim] in place of its
first three inputs. Works on the Split that projections.py leaves, and on the Split or the three
Slices of architectures whose projection is packed already.
"""

from __future__ import annotations

import onnx_ir as ir

from model_export.fuse.graphs import constant, dimensions, producer, tidy


def pack_attention_input(model: ir.Model) -> None:
    """Pack every attention node whose query, key and value lie side by side."""
    for node in model.graph:
        if node.op_type == "GroupQueryAttention":
            whole = _whole(list(node.inputs[:3]))
            if whole is not None:
                node.replace_input_with(0, whole)
                node.replace_input_with(1, None)
                node.replace_input_with(2, None)
    tidy(model)


def _whole(parts: list[ir.Value | None]) -> ir.Value | None:
    """The tensor that the three parts are cut from, in their order and without a rest."""
    split = producer(parts[0], "Split")
    if split is not None:
        return split.inputs[0] if list(split.outputs) == parts else None
    slices = [producer(part, "Slice") for part in parts]
    source = slices[0].inputs[0] if slices[0] is not None else None
    edge: object = 0
    for part in slices:
        if part is None or part.inputs[0] is not source:
            return None
        start, end, axis = (constant(value) for value in part.inputs[1:4])
        if start is None or end is None or axis is None or start.item() != edge:
            return None
        if axis.item() not in (-1, 2):
            return None
        edge = end.item()
    width = (dimensions(source) or (None,))[-1] if source is not None else None
    return source if isinstance(width, int) and int(str(edge)) >= width else None
