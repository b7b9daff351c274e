"""The nodes kindling::CausalConvolution and kindling::LinearAttention, as torch's exporter is told.

docs/kernels.md has the operators. Run in torch the nodes only have the right shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from model_export.convert.trace import absent, typed_as
from model_export.fuse.graphs import KINDLING


class CausalConvolutionNode(torch.autograd.Function):
    """A short convolution with a state.

    x [batch, sequence, channels], weight [channels, width], bias [channels] or None, the past
    state, seqlens_k, query_seqlens. Returns as x, and the present state.
    """

    @staticmethod
    def forward(
        context: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        past: torch.Tensor,
        *lengths: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(x), past.clone()

    @staticmethod
    def symbolic(
        graph: Any, x: Any, weight: Any, bias: Any, past: Any, seqlens_k: Any, query_seqlens: Any
    ) -> Any:
        inputs = [x, weight, absent(graph) if bias is None else bias, past]
        outputs = graph.op(
            f"{KINDLING}::CausalConvolution", *inputs, seqlens_k, query_seqlens, outputs=2
        )
        return typed_as(outputs, (x, past))


@dataclass(frozen=True, slots=True)
class LinearAttentionAttributes:
    """The attributes of one LinearAttention node. A norm_epsilon of 0 is no norm."""

    heads: int
    key_heads: int
    scale: float
    norm_epsilon: float


class LinearAttentionNode(torch.autograd.Function):
    """Linear attention with a state.

    query and key [batch, sequence, key_heads * key_size], value [batch, sequence, heads *
    value_size], decay and beta [batch, sequence, heads] or None, the past state, seqlens_k,
    query_seqlens, attributes. Returns as value, and the present state.
    """

    @staticmethod
    def forward(
        context: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        decay: torch.Tensor | None,
        beta: torch.Tensor | None,
        past: torch.Tensor,
        *others: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros_like(value), past.clone()

    @staticmethod
    def symbolic(
        graph: Any,
        query: Any,
        key: Any,
        value: Any,
        decay: Any,
        beta: Any,
        past: Any,
        seqlens_k: Any,
        query_seqlens: Any,
        attributes: LinearAttentionAttributes,
    ) -> Any:
        optional = [absent(graph) if given is None else given for given in (decay, beta)]
        outputs = graph.op(
            f"{KINDLING}::LinearAttention",
            query,
            key,
            value,
            *optional,
            past,
            seqlens_k,
            query_seqlens,
            num_heads_i=attributes.heads,
            key_heads_i=attributes.key_heads,
            scale_f=attributes.scale,
            norm_epsilon_f=attributes.norm_epsilon,
            outputs=2,
        )
        return typed_as(outputs, (value, past))
