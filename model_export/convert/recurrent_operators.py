"""The recurrent layers of one traced step: each leaves its node, with the layer's state.

Called by decoder.py; recurrent_nodes.py has the nodes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from handlers.artifact.graph_contract import CacheKind
from model_export.convert.recurrent import LinearAttention
from model_export.convert.recurrent_nodes import (
    CausalConvolutionNode,
    LinearAttentionAttributes,
    LinearAttentionNode,
)
from model_export.convert.shared_cache import SharedCache


@dataclass(frozen=True, slots=True)
class RecurrentOperators:
    """All recurrent layers of one step. `seqlens_k`, `query_seqlens`: int32 [batch]."""

    cache: SharedCache
    seqlens_k: torch.Tensor
    query_seqlens: torch.Tensor

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        """As recurrent.Recurrence.convolution."""
        output, present = CausalConvolutionNode.apply(
            x, weight, bias, self._past("convolution"), self.seqlens_k, self.query_seqlens
        )
        return self._keep("convolution", present, output)

    def attend_linearly(self, given: LinearAttention) -> torch.Tensor:
        """As recurrent.Recurrence.linear_attention."""
        attributes = LinearAttentionAttributes(
            heads=int(given.value.shape[2]),
            key_heads=int(given.key.shape[2]),
            scale=given.scale,
            norm_epsilon=given.norm_epsilon,
        )
        output, present = LinearAttentionNode.apply(
            *(states.flatten(2) for states in (given.query, given.key, given.value)),
            given.decay,
            given.beta,
            self._past("recurrent"),
            self.seqlens_k,
            self.query_seqlens,
            attributes,
        )
        return self._keep("recurrent", present, output.reshape(given.value.shape))

    def _past(self, kind: CacheKind) -> torch.Tensor:
        return self.cache.past[self.cache.recurrent_layer, kind]

    def _keep(self, kind: CacheKind, present: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        self.cache.present[self.cache.recurrent_layer, kind] = present
        return output
