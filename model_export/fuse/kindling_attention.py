"""Replaces GroupQueryAttention by kindling::Attention, our own operator (docs/kernels.md).

The passes before work on Microsoft's node, which the trace leaves. Ours computes a query alike
in every batch, and reads keys in blocks of positions: so the cache's keys change their shape
here. What the cache holds is float32; quantize/ makes it float16.
"""

from __future__ import annotations

import onnx_ir as ir

from handlers.artifact import graph_contract as contract
from model_export.fuse.graphs import KINDLING, attribute, dimensions, insert, rename, tidy

_INPUTS = (0, 1, 2, 3, 4, 5, 16, 7, 8, 11)
"""Query, key, value, their past, seqlens_k, query_seqlens, cos, sin, sinks among Microsoft's."""


def to_kindling_attention(model: ir.Model) -> None:
    """Replaces every GroupQueryAttention, and the keys of its cache by blocks of them."""
    for node in list(model.graph):
        if node.op_type == "GroupQueryAttention":
            _replace(node)
            model.graph.opset_imports[KINDLING] = 1
    tidy(model)


def _replace(node: ir.Node) -> None:
    given = [*node.inputs, *[None] * (max(_INPUTS) + 1 - len(node.inputs))]
    ours = insert(
        node,
        "Attention",
        [given[index] for index in _INPUTS],
        {
            "num_heads": int(attribute(node, "num_heads", 0)),
            "kv_num_heads": int(attribute(node, "kv_num_heads", 0)),
            "scale": float(attribute(node, "scale", 1.0)),
            "softcap": float(attribute(node, "softcap", 0.0)),
            "window": int(attribute(node, "local_window_size", -1)),
            "rotary_interleaved": int(attribute(node, "rotary_interleaved", 0)),
        },
        KINDLING,
        outputs=3,
        like=node.outputs,
    )
    for new, old in zip(ours.outputs, list(node.outputs), strict=True):
        rename(new, old)
    for keys in (ours.inputs[3], ours.outputs[1]):
        if keys is not None:
            keys.shape = _blocked(keys)


def _blocked(keys: ir.Value) -> ir.Shape:
    """Returns [batch, kv_heads, blocks, head_dim, positions of a block]."""
    batch, heads, _, head_dim = dimensions(keys) or ()
    return ir.Shape([batch, heads, contract.BLOCKS, head_dim, contract.KEY_BLOCK])
