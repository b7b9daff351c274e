"""Traces a model's attention as com.microsoft::GroupQueryAttention.

transformers hands every architecture's attention to one function and every mask to another
(its AttentionInterface and AttentionMaskInterface). Here both are ours for the length of a
trace: the mask is reduced to the width of its window, and the attention becomes one node that
reads and writes the shared cache in place. A mask or an argument that the node cannot express
is refused. After all other passes fuse/kindling_attention.py puts our own operator in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import AttentionInterface

from handlers.artifact.graph_contract import BY_POSITION
from model_export.reporting import ExportError
from model_export.trace.cache import SharedCache
from model_export.trace.tracing import absent, typed_as

INTERFACE = "kindling_group_query_attention"

HARMLESS = frozenset(
    {
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
)
"""Keyword arguments that models hand down and that carry nothing for a node.

Dropout is 0 in inference, the positions and the cache arrive by other ways, the window arrives as
the mask, causality is checked there.
"""


@dataclass(frozen=True, slots=True)
class Attention:
    """Traces the attention of one step, in all layers.

    `seqlens_k`, `query_seqlens`: int32 [batch].
    """

    architecture: str
    context_length: int
    cache: SharedCache
    seqlens_k: torch.Tensor
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
        """Stands in for transformers' attention function.

        `query` [batch, heads, sequence, head_dim], `key` and `value` the same with kv_heads.
        Returns [batch, sequence, heads, head_dim]. Raises ExportError.
        """
        window = self._window(attention_mask)
        self._refuse_unknown(others)
        layer = int(getattr(module, "layer_idx"))  # noqa: B009  (torch types it as a Tensor)
        attributes = AttentionAttributes(
            heads=int(query.shape[1]),
            kv_heads=int(key.shape[1]),
            scale=float(query.shape[-1] ** -0.5 if scaling is None else scaling),
            softcap=float(softcap or 0.0),
            window=-1 if window.size is None else window.size,
        )
        batch, sequence = query.shape[0], query.shape[2]
        width = max(query.shape[3], value.shape[3])
        past = [self.cache.past[layer, kind] for kind in BY_POSITION]
        output, *present = GroupQueryAttentionNode.apply(
            *(_merge_heads(_widen(states, width)) for states in (query, key, value)),
            *past,
            self.seqlens_k,
            torch.as_tensor(past[0].shape[2], dtype=torch.int32),  # total_sequence_length
            s_aux,
            self.query_seqlens,
            attributes,
        )
        self.cache.present |= {
            (layer, kind): state for kind, state in zip(BY_POSITION, present, strict=True)
        }
        output = output.reshape(batch, sequence, attributes.heads, -1)
        return output[..., : value.shape[3]], None

    def mask(self, *, mask_function: Callable[..., torch.Tensor], **_: Any) -> Window:
        """Stands in for transformers' mask function. Raises ExportError for what is no window."""
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
        unknown = {name for name in given - HARMLESS if arguments[name] is not False}
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
    """Puts these in the place of transformers' attention and mask functions while it runs."""
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


def _widen(states: torch.Tensor, width: int) -> torch.Tensor:
    """Pads narrower heads with zeros to the node's one width, where keys and values differ.

    They add nothing to a product of query and key; after values they are cut off again.
    """
    missing = int(width) - int(states.shape[3])
    return torch.nn.functional.pad(states, (0, missing)) if missing else states


def _merge_heads(states: torch.Tensor) -> torch.Tensor:
    """Reshapes [batch, heads, sequence, head_dim] to [batch, sequence, heads * head_dim]."""
    batch, heads, sequence, head_dim = states.shape
    return states.transpose(1, 2).reshape(batch, sequence, int(heads) * int(head_dim))


@dataclass(frozen=True, slots=True)
class AttentionAttributes:
    """The attributes of one GroupQueryAttention node. A window of -1 is none."""

    heads: int
    kv_heads: int
    scale: float
    softcap: float
    window: int


class GroupQueryAttentionNode(torch.autograd.Function):
    """Leaves com.microsoft::GroupQueryAttention in a trace. In torch it only has the right shapes.

    https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md

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
        attributes: AttentionAttributes,
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


@dataclass(frozen=True, slots=True)
class Window:
    """How many tokens a layer sees, the query's own among them; None is all."""

    size: int | None


def window_of(mask_function: Callable[..., torch.Tensor], context_length: int) -> Window | None:
    """Returns the window that a mask function of transformers describes, None if it is not one.

    A mask is judged by what it lets through, not by its name.

    `mask_function(batch, head, query, key)` says which keys a query sees. The last query of the
    context shows the width; the queries where a window begins, fills and slides must agree.
    """
    keys = torch.arange(context_length)
    last = context_length - 1

    def seen(query: int) -> torch.Tensor:
        zero = torch.tensor(0)
        allowed = mask_function(zero, zero, torch.tensor(query), keys)
        return allowed.broadcast_to(keys.shape)

    width = int(seen(last).sum())
    queries = {0, 1, width - 1, width, width + 1, last // 2, last}
    for query in (query for query in queries if 0 <= query <= last):
        if not torch.equal(seen(query), (keys <= query) & (keys > query - width)):
            return None
    return Window(None if width == context_length else width)
