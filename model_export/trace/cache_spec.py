"""Finds what every layer keeps from step to step, by running one step of the model.

Architectures differ in what they call their heads, in which layers share them, and in which layers
have a state of another kind. So the model runs on one token, with functions in the place of its
attention and its recurrent layers that record the shapes they are given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, get_args

import torch
from transformers import PreTrainedModel

from handlers.artifact.graph_contract import BY_POSITION, CacheKind, past_name, present_name
from model_export.reporting import ExportError
from model_export.trace.attention import attention_of
from model_export.trace.cache import SharedCache
from model_export.trace.patches import traceable
from model_export.trace.recurrent import LinearAttention, Recurrence, recurrence_of
from model_export.trace.support import RECURRENT, STATELESS
from model_export.trace.tracing import NoProducts

_DOES: dict[CacheKind, str] = {
    "key": "attends",
    "value": "attends",
    "convolution": "convolves",
    "recurrent": "recurs",
}


@dataclass(frozen=True, slots=True)
class CacheShape:
    """The shape of one kind of state of one layer.

    `sizes` of keys and values are (kv_heads, head_dim), of the others all that follow the batch.
    """

    layer: int
    kind: CacheKind
    sizes: tuple[int, ...]

    @property
    def past(self) -> str:
        """The name of the graph's input for it."""
        return past_name(self.layer, self.kind)

    @property
    def present(self) -> str:
        """The name of the graph's output for it."""
        return present_name(self.layer, self.kind)


@dataclass(slots=True)
class ShapeRecorder:
    """Stands in for a model's layers: returns zeros and records shapes. Its mask hides nothing."""

    architecture: str
    cache: SharedCache
    seen: dict[tuple[int, CacheKind], CacheShape] = field(default_factory=dict)

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
        width = max(int(key.shape[3]), int(value.shape[3]))
        for kind in BY_POSITION:
            self._record(layer, kind, (int(key.shape[1]), width))
        batch, heads, sequence, _head_dim = query.shape
        return query.new_zeros(batch, sequence, heads, value.shape[3]), None

    def mask(self, **_: Any) -> torch.Tensor:
        return torch.zeros(1, 1, 1, 1)

    def convolve(
        self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        channels, width = weight.shape
        self._record(self.cache.recurrent_layer, "convolution", (int(width) - 1, int(channels)))
        return torch.zeros_like(x)

    def attend_linearly(self, given: LinearAttention) -> torch.Tensor:
        heads, value_size = given.value.shape[2:]
        sizes = (int(heads), int(given.key.shape[3]), int(value_size))
        self._record(self.cache.recurrent_layer, "recurrent", sizes)
        return torch.zeros_like(given.value)

    def _record(self, layer: int, kind: CacheKind, sizes: tuple[int, ...]) -> None:
        if (layer, kind) in self.seen:
            raise ExportError(
                f"{self.architecture} {_DOES[kind]} more than once in its layer {layer}, and a "
                f"layer has one cache, so it cannot be exported."
            )
        if layer < 0:
            raise ExportError(
                f"{self.architecture} {_DOES[kind]} outside its layers, which have the caches, so "
                f"it cannot be exported."
            )
        self.seen[layer, kind] = CacheShape(layer, kind, sizes)


def cache_spec(model: PreTrainedModel) -> list[CacheShape]:
    """Returns what every layer keeps, in the graph's order. Raises ExportError."""
    name = type(model).__name__
    recorder = ShapeRecorder(name, SharedCache(name))
    one = torch.zeros((1, 1), dtype=torch.int64)
    recurrence = Recurrence(recorder.convolve, recorder.attend_linearly)
    with (
        traceable(model),
        attention_of(model, recorder.attend, recorder.mask),
        recurrence_of(model, recurrence),
    ):
        with NoProducts():
            model(input_ids=one, position_ids=one, past_key_values=recorder.cache, use_cache=True)
        _check_all_seen(model, {layer for layer, _ in recorder.seen})
        _check_convolutions(recorder)
    order = get_args(CacheKind)
    return sorted(recorder.seen.values(), key=lambda shape: (shape.layer, order.index(shape.kind)))


def _check_all_seen(model: PreTrainedModel, seen: set[int]) -> None:
    name, config = type(model).__name__, model.config.get_text_config()
    kinds = getattr(config, "layer_types", None) or ["attention"] * config.num_hidden_layers
    missing = {
        layer: kind
        for layer, kind in enumerate(kinds)
        if kind not in STATELESS and layer not in seen
    }
    layers = ", ".join(map(str, missing))
    if RECURRENT.intersection(missing.values()):
        raise ExportError(
            f"{name} keeps the state of its layers {layers} in a way of its own, so it cannot be "
            f"exported."
        )
    if missing:
        raise ExportError(
            f"{name} does not send the attention of its layers {layers} through transformers' "
            f"attention interface, so it cannot be exported."
        )


def _check_convolutions(recorder: ShapeRecorder) -> None:
    """Refuses a convolution by a function that is not ours: it would lose its state silently."""
    lost = [n for n in recorder.cache.convolving if (n, "convolution") not in recorder.seen]
    if lost:
        raise ExportError(
            f"{recorder.architecture} has in its layers {', '.join(map(str, sorted(lost)))} a "
            f"convolution of its own, whose state our operators cannot keep, so it cannot be "
            f"exported."
        )
