"""The node com.microsoft::GroupQueryAttention, as torch's exporter is told of it.

https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from model_export.convert.trace import absent, typed_as


@dataclass(frozen=True, slots=True)
class NodeAttributes:
    """The attributes of one GroupQueryAttention node. A window of -1 is none."""

    heads: int
    kv_heads: int
    scale: float
    softcap: float
    window: int


class GroupQueryAttentionNode(torch.autograd.Function):
    """Gives the trace its node. Run in torch it only has the right shapes.

    Returns [batch, sequence, heads * head_dim] and the present key and value.
    """

    @staticmethod
    def forward(
        context: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        past_key: torch.Tensor,
        past_value: torch.Tensor,
        *others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return torch.zeros_like(query), past_key.clone(), past_value.clone()

    @staticmethod
    def symbolic(
        graph: Any,
        query: Any,
        key: Any,
        value: Any,
        past_key: Any,
        past_value: Any,
        seqlens_k: Any,
        total_sequence_length: Any,
        head_sink: Any,
        query_seqlens: Any,
        attributes: NodeAttributes,
    ) -> Any:
        inputs = [query, key, value, past_key, past_value, seqlens_k, total_sequence_length]
        inputs += [absent(graph)] * 4  # cos_cache, sin_cache, position_ids, attention_bias
        inputs += [absent(graph) if head_sink is None else head_sink]
        inputs += [absent(graph)] * 4  # k_scale, v_scale, q_norm_weight, k_norm_weight
        inputs += [query_seqlens]
        outputs = graph.op(
            "com.microsoft::GroupQueryAttention",
            *inputs,
            num_heads_i=attributes.heads,
            kv_num_heads_i=attributes.kv_heads,
            scale_f=attributes.scale,
            softcap_f=attributes.softcap,
            local_window_size_i=attributes.window,
            outputs=3,
        )
        return typed_as(outputs, (query, past_key, past_value))
