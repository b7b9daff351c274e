"""The shape of every layer's cache, read off one step of the model.

Architectures differ in what they call their heads and in which layers share them, so the
model is run on one token and its attention says what it is given. Called by convert.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from model_export.attention import SharedCache, attention_of
from model_export.errors import ExportError


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Of one layer, keys and values alike: [batch, kv_heads, capacity, head_dim]."""

    kv_heads: int
    head_dim: int


@dataclass(slots=True)
class _Witness:
    """Attention that answers zeros and notes what it was given. Its mask lets all through."""

    architecture: str
    seen: dict[int, CacheShape] = field(default_factory=dict)

    def attend(
        self,
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        *_: Any,
        **__: Any,
    ) -> tuple[torch.Tensor, None]:
        layer = int(module.layer_idx)
        if layer in self.seen:
            raise ExportError(
                f"{self.architecture} attends more than once in its layer {layer}, and a layer has "
                f"one cache, so it cannot be exported."
            )
        width = max(int(key.shape[3]), int(value.shape[3]))
        self.seen[layer] = CacheShape(int(key.shape[1]), width)
        batch, heads, sequence, _head_dim = query.shape
        return query.new_zeros(batch, sequence, heads, value.shape[3]), None

    def mask(self, **_: Any) -> torch.Tensor:
        return torch.zeros(1, 1, 1, 1)


def cache_shapes(model: PreTrainedModel) -> list[CacheShape]:
    """One shape a layer. Raises ExportError when a layer's attention was not seen."""
    witness = _Witness(type(model).__name__)
    one = torch.zeros((1, 1), dtype=torch.int64)
    with attention_of(model, witness.attend, witness.mask), torch.no_grad():
        model(input_ids=one, position_ids=one, past_key_values=SharedCache([]), use_cache=True)
    layers = range(model.config.get_text_config().num_hidden_layers)
    missing = [str(layer) for layer in layers if layer not in witness.seen]
    if missing:
        raise ExportError(
            f"{witness.architecture} does not send the attention of its layers "
            f"{', '.join(missing)} through transformers' attention interface, so it cannot be "
            f"exported."
        )
    return [witness.seen[layer] for layer in layers]
