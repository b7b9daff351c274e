"""Moves rotary embeddings into the attention node, with the model's own tables.

Before: q * cos + rotate_half(q) * sin, and the same for k, with cos and sin computed from the
positions at every step. After: do_rotary=1 and two tables [context, rotary_dim / 2], computed
once from the very nodes that the trace has for cos and sin, so that every kind of scaling
is in them. Su et al. 2021, https://arxiv.org/abs/2104.09864.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from handlers.artifact import graph_contract as contract
from model_export.fuse.graphs import (
    add_initializer,
    constant,
    dimensions,
    insert,
    producer,
    tidy,
)


@dataclass(frozen=True, slots=True)
class _Rotated:
    """States [batch, heads, sequence, head_dim] before rotation, and what rotates them."""

    states: ir.Value
    cos: ir.Value
    sin: ir.Value


def fuse_rotary(model: ir.Model) -> None:
    """Folds the rotation of query and key into every GroupQueryAttention that has one."""
    tables: dict[str, ir.Value | None] = {}
    for node in list(model.graph):
        if node.op_type == "GroupQueryAttention":
            _fuse(model, node, tables)
    tidy(model)


def _fuse(model: ir.Model, node: ir.Node, tables: dict[str, ir.Value | None]) -> None:
    query, key = _match_rotated(node.inputs[0]), _match_rotated(node.inputs[1])
    if query is None or key is None or query.cos is not key.cos or query.sin is not key.sin:
        return
    cos, sin = (_table(model, value, tables) for value in (query.cos, query.sin))
    if cos is None or sin is None:
        return
    for index, rotated in enumerate((query, key)):
        node.replace_input_with(index, _merge_heads(model, node, rotated.states))
    node.replace_input_with(7, cos)
    node.replace_input_with(8, sin)
    node.attributes.add(ir.AttrInt64("do_rotary", 1))


def _match_rotated(value: ir.Value | None) -> _Rotated | None:
    """Matches Reshape(Transpose(rotated states)), rotated in full or in their first part."""
    merged = producer(value, "Reshape")
    swapped = producer(merged.inputs[0], "Transpose") if merged else None
    result = swapped.inputs[0] if swapped else None
    joined = producer(result, "Concat")
    if joined is None:
        return _match_rotation(producer(result, "Add"))
    if len(joined.inputs) != 2:
        return None
    first = _match_rotation(producer(joined.inputs[0], "Add"))
    start, rest = (
        producer(v, "Slice") for v in (first.states if first else None, joined.inputs[1])
    )
    if first is None or start is None or rest is None or start.inputs[0] is not rest.inputs[0]:
        return None
    source = start.inputs[0]
    split = (dimensions(first.states) or (None,))[-1]
    if source is None or _slice(start) != (0, split) or _slice(rest)[0] != split:
        return None
    return _Rotated(source, first.cos, first.sin)


def _match_rotation(total: ir.Node | None) -> _Rotated | None:
    """Matches x * cos + Concat(-x[half:], x[:half]) * sin."""
    left, right = (producer(v, "Mul") for v in total.inputs) if total else (None, None)
    if left is None or right is None:
        return None
    half = producer(right.inputs[0], "Concat")
    states = left.inputs[0]
    if half is None or states is None or len(half.inputs) != 2:
        return None
    negated = producer(half.inputs[0], "Neg")
    upper = producer(negated.inputs[0], "Slice") if negated else None
    lower = producer(half.inputs[1], "Slice")
    if upper is None or lower is None or not upper.inputs[0] is lower.inputs[0] is states:
        return None
    size = (dimensions(states) or (None,))[-1]
    if not isinstance(size, int) or _slice(lower) != (0, size // 2):
        return None
    cos, sin = (producer(mul.inputs[1], "Unsqueeze") for mul in (left, right))
    if _slice(upper)[0] != size // 2 or cos is None or sin is None:
        return None
    return _Rotated(states, cos.inputs[0], sin.inputs[0])  # type: ignore[arg-type]


def _slice(node: ir.Node) -> tuple[int, int]:
    """Returns start and end of a slice of the last axis with step 1, (-1, -1) if it is another."""
    start, end, axis, *step = (constant(value) for value in node.inputs[1:])
    rank = len(dimensions(node.outputs[0]) or ())
    known = start is not None and end is not None and axis is not None
    if not known or axis.item() not in (-1, rank - 1) or any(s.item() != 1 for s in step):  # type: ignore[union-attr]
        return (-1, -1)
    return (start.item(), end.item())  # type: ignore[union-attr]


def _merge_heads(model: ir.Model, node: ir.Node, states: ir.Value) -> ir.Value:
    """Reshapes [batch, heads, sequence, head_dim] to [batch, sequence, heads * head_dim]."""
    shape = dimensions(states)
    swapped = insert(node, "Transpose", [states], {"perm": (0, 2, 1, 3)})
    width = int(shape[1]) * int(shape[3])  # type: ignore[index,arg-type]
    target = add_initializer(model, f"{node.name}/merged", np.array([0, 0, width], np.int64))
    merged = insert(node, "Reshape", [swapped.outputs[0], target])
    merged.outputs[0].type = states.type
    merged.outputs[0].shape = ir.Shape([contract.BATCH, contract.SEQUENCE, width])
    return merged.outputs[0]


def _table(model: ir.Model, value: ir.Value, known: dict[str, ir.Value | None]) -> ir.Value | None:
    """Returns the table [context, rotary_dim / 2] of `value`, None if it is none of positions."""
    name = str(value.name)
    if name not in known:
        array = _evaluate(model, value)
        half = array.shape[-1] // 2 if array is not None else 0
        if array is None or half % 8 or not np.array_equal(array[:, :half], array[:, half:]):
            known[name] = None  # the kernel takes multiples of 8
        else:
            known[name] = add_initializer(model, f"{name}/table", array[:, :half].copy())
    return known[name]


def _evaluate(model: ir.Model, value: ir.Value) -> NDArray[np.float32] | None:
    """Computes `value`, [batch, sequence, n], for one row of every position in the context."""
    inputs = {str(v.name): v for v in model.graph.inputs}
    names = (contract.INPUT_IDS, contract.QUERY_SEQLENS, contract.SEQLENS_K)
    try:
        part = ir.convenience.extract(model.graph, [inputs[name] for name in names], [value])
    except ValueError:
        return None  # depends on more than the positions
    length = int(model.metadata_props["context_length"])
    feeds = {
        contract.INPUT_IDS: np.zeros((1, length), np.int64),
        contract.QUERY_SEQLENS: np.array([length], np.int32),
        contract.SEQLENS_K: np.array([length - 1], np.int32),
    }
    proto = ir.to_proto(ir.Model(part, ir_version=model.ir_version))
    (table,) = ReferenceEvaluator(proto).run(None, feeds)
    table = np.asarray(table, np.float32)
    return table[0] if table.ndim == 3 and len(table) == 1 else None
