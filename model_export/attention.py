"""Attention that leaves a trace as com.microsoft::GroupQueryAttention.

transformers hands every architecture's attention to one function and every mask to another
(its AttentionInterface and AttentionMaskInterface). Here both are ours for the length of a
trace: the mask is reduced to the width of its window, and the attention becomes one node that
reads and writes the shared cache in place. A mask or an argument that the node cannot express
is refused. Behind all other passes fuse/own_attention.py puts our own operator in its place.
Called by decoder.py; knows nothing of architectures or weights.

The node: https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from model_export.errors import ExportError
from model_export.window import Window, window_of

INTERFACE = "kindling_group_query_attention"

# Keyword arguments that carry nothing for the node: dropout is 0 in inference, the positions
# and the cache arrive by other ways, the window arrives as the mask, causality is checked there.
_HARMLESS = {
    "cache_position",
    "dropout",
    "is_causal",
    "output_attentions",
    "output_hidden_states",
    "past_key_values",
    "position_embeddings",
    "position_ids",
    "return_dict",
    "sliding_window",
    "use_cache",
}


class SharedCache(Cache):
    """Past and present buffers beside the model's own way of updating a cache.

    `update` returns the new keys and values alone: joining them to the past is the node's work.
    `past` and `present` hold (key, value), each [batch, kv_heads, capacity, head_dim], by layer.
    """

    def __init__(self, past: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
        super().__init__(layers=[])
        self.past = past
        self.present: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pass the new keys and values through."""
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Unused: positions come from the graph's inputs."""
        return 0

    @property
    def has_previous_state(self) -> bool:
        """What layers ask that carry a state of another kind from step to step (Mamba)."""
        raise ExportError(
            "The model's layers keep a state that is not keys and values, so it cannot be exported."
        )

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Unused: positions come from the graph's inputs."""
        return 0

    def get_mask_sizes(self, query: object, layer_idx: int) -> tuple[int, int]:
        """Unused: the mask is reduced to a window."""
        return 0, 0


@dataclass(frozen=True, slots=True)
class Attention:
    """The attention of one traced step, all layers of it.

    `seqlens_k`, `query_seqlens`: int32 [batch]; `total_sequence_length`: int32 scalar.
    """

    architecture: str
    context_length: int
    cache: SharedCache
    seqlens_k: torch.Tensor
    total_sequence_length: torch.Tensor
    query_seqlens: torch.Tensor

    def attend(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: Window | None,
        scaling: float | None = None,
        softcap: float | None = None,
        s_aux: torch.Tensor | None = None,
        **others: Any,
    ) -> tuple[torch.Tensor, None]:
        """transformers' attention function.

        `query` [batch, heads, sequence, head_dim], `key` and `value` the same with kv_heads.
        Returns [batch, sequence, heads, head_dim]. Raises ExportError.
        """
        window = self._window(attention_mask)
        self._refuse_unknown(others)
        layer = int(getattr(module, "layer_idx"))  # noqa: B009  (torch types it as a Tensor)
        attributes = NodeAttributes(
            heads=int(query.shape[1]),
            kv_heads=int(key.shape[1]),
            scale=float(query.shape[-1] ** -0.5 if scaling is None else scaling),
            softcap=float(softcap or 0.0),
            window=-1 if window.size is None else window.size,
        )
        batch, sequence = query.shape[0], query.shape[2]
        width = max(query.shape[3], value.shape[3])
        output, *present = _GroupQueryAttention.apply(
            *(_merge_heads(_widen(states, width)) for states in (query, key, value)),
            *self.cache.past[layer],
            self.seqlens_k,
            self.total_sequence_length,
            s_aux,
            self.query_seqlens,
            attributes,
        )
        self.cache.present[layer] = (present[0], present[1])
        output = output.reshape(batch, sequence, attributes.heads, -1)
        return output[..., : value.shape[3]], None

    def mask(self, *, mask_function: Callable[..., torch.Tensor], **_: Any) -> Window:
        """transformers' mask function. Raises ExportError for a mask that is not a window."""
        window = window_of(mask_function, self.context_length)
        if window is None:
            raise ExportError(
                f"{self.architecture} masks its attention in a way that GroupQueryAttention "
                f"cannot express (neither causal nor a causal sliding window), so it cannot be "
                f"exported."
            )
        return window

    def _window(self, mask: object) -> Window:
        if isinstance(mask, Window):
            return mask
        raise ExportError(
            f"{self.architecture} builds an attention mask of its own, which may be more than a "
            f"window (ALiBi or another bias) and cannot be read off, so it cannot be exported."
        )

    def _refuse_unknown(self, arguments: dict[str, Any]) -> None:
        given = {name for name, value in arguments.items() if value is not None}
        unknown = {name for name in given - _HARMLESS if arguments[name] is not False}
        if unknown:
            raise ExportError(
                f"{self.architecture} gives its attention {', '.join(sorted(unknown))}, which "
                f"GroupQueryAttention cannot express, so it cannot be exported."
            )


@contextmanager
def attention_of(
    model: PreTrainedModel,
    attend: Callable[..., tuple[torch.Tensor, None]],
    mask: Callable[..., Any],
) -> Iterator[None]:
    """Put these in the place of transformers' attention and mask functions while the block runs."""
    before = model.config._attn_implementation
    AttentionInterface.register(INTERFACE, attend)
    AttentionMaskInterface.register(INTERFACE, mask)
    model.config._attn_implementation = INTERFACE
    try:
        yield
    finally:
        model.config._attn_implementation = before
        del AttentionInterface._global_mapping[INTERFACE]
        del AttentionMaskInterface._global_mapping[INTERFACE]


@dataclass(frozen=True, slots=True)
class NodeAttributes:
    """The attributes of one GroupQueryAttention node. A window of -1 is none."""

    heads: int
    kv_heads: int
    scale: float
    softcap: float
    window: int


class _GroupQueryAttention(torch.autograd.Function):
    """Gives the trace its node. Run in torch it only has the right shapes."""

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
        def absent(count: int) -> list[Any]:
            return [_absent(graph) for _ in range(count)]

        inputs = [query, key, value, past_key, past_value, seqlens_k, total_sequence_length]
        inputs += absent(4)  # cos_cache, sin_cache, position_ids, attention_bias
        inputs += absent(1) if head_sink is None else [head_sink]
        inputs += absent(4)  # k_scale, v_scale, q_norm_weight, k_norm_weight
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
        for output, like in zip(outputs, (query, past_key, past_value), strict=True):
            output.setType(like.type())
        return outputs


def _absent(graph: Any) -> Any:
    """An optional input left out: torch writes it as the empty name."""
    constant = graph.op("prim::Constant")
    constant.setType(torch._C.OptionalType.ofTensor())
    return constant


def _widen(states: torch.Tensor, width: int) -> torch.Tensor:
    """Zeros behind heads that are narrower than the node's one width, where keys and values differ.

    They add nothing to a product of query and key; behind values they are cut off again.
    """
    missing = int(width) - int(states.shape[3])
    return torch.nn.functional.pad(states, (0, missing)) if missing else states


def _merge_heads(states: torch.Tensor) -> torch.Tensor:
    """[batch, heads, sequence, head_dim] -> [batch, sequence, heads * head_dim]."""
    batch, heads, sequence, head_dim = states.shape
    return states.transpose(1, 2).reshape(batch, sequence, int(heads) * int(head_dim))
