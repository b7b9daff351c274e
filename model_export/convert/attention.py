"""Attention that leaves a trace as com.microsoft::GroupQueryAttention.

transformers hands every architecture's attention to one function and every mask to another
(its AttentionInterface and AttentionMaskInterface). Here both are ours for the length of a
trace: the mask is reduced to the width of its window, and the attention becomes one node that
reads and writes the shared cache in place. A mask or an argument that the node cannot express
is refused. Behind all other passes fuse/own_attention.py puts our own operator in its place.
Called by decoder.py; knows nothing of architectures or weights.

attention_node.py has the node.
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
from model_export.convert.attention_node import GroupQueryAttentionNode, NodeAttributes
from model_export.convert.shared_cache import SharedCache
from model_export.convert.window import Window, window_of
from model_export.errors import ExportError

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
    """The attention of one traced step, all layers of it.

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
