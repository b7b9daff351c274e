"""Lets attention read query, key and value as the one tensor that they were cut from.

Some architectures have one projection for the three: GPT-2 cuts it by a Split, Phi-3 by three
Slices. GroupQueryAttention takes the whole in place of its first three inputs.
"""

from __future__ import annotations

import onnx_ir as ir

from model_export.fuse.graphs import constant, dimensions, producer, tidy


def pack_qkv_input(model: ir.Model) -> None:
    """Gives the whole to every attention node whose three inputs are all of one tensor."""
    for node in model.graph:
        if node.op_type == "GroupQueryAttention":
            whole = _whole(list(node.inputs[:3]))
            if whole is not None:
                for index, value in enumerate((whole, None, None)):
                    node.replace_input_with(index, value)
    tidy(model)


def _whole(parts: list[ir.Value | None]) -> ir.Value | None:
    """Returns the tensor that the parts are cut from, in their order and without a rest."""
    split = producer(parts[0], "Split")
    if split is not None:
        return split.inputs[0] if list(split.outputs) == parts else None
    slices = [node for node in (producer(part, "Slice") for part in parts) if node is not None]
    sources = {node.inputs[0] for node in slices}
    if len(slices) != 3 or len(sources) != 1:
        return None
    source = sources.pop()
    width = (dimensions(source) or (None,))[-1] if source is not None else None
    return source if _tiles([_range(node) for node in slices], width) else None


def _range(node: ir.Node) -> tuple[int, int]:
    """Returns start and end of a slice of the last of three axes, (-1, -1) of any other."""
    start, end, axis = (constant(value) for value in node.inputs[1:4])
    if start is None or end is None or axis is None or axis.item() not in (-1, 2):
        return (-1, -1)
    return (int(start.item()), int(end.item()))


def _tiles(ranges: list[tuple[int, int]], width: int | str | None) -> bool:
    edges = [0]
    for start, end in ranges:
        if start != edges[-1] or end <= start:
            return False
        edges.append(end)
    return isinstance(width, int) and edges[-1] >= width
