"""The cache that a trace hands a transformers model: it passes everything through.

What a layer keeps from step to step lies in buffers beside it, which the trace's own nodes read
and write in place. A model finds in here what transformers' caches have, and nothing in it.
Called by decoder.py and cache_shapes.py.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache

from handlers.artifact.graph_contract import CacheKind
from model_export.errors import ExportError


class SharedCache(Cache):
    """Past and present buffers beside the model's own way of updating a cache.

    `past` and `present` have a buffer for each kind of state of each layer; graph_contract.py has
    their shapes.
    """

    def __init__(
        self, architecture: str, past: dict[tuple[int, CacheKind], torch.Tensor] | None = None
    ) -> None:
        super().__init__(layers=[])
        self.architecture = architecture
        self.past = past or {}
        self.present: dict[tuple[int, CacheKind], torch.Tensor] = {}
        self.recurrent_layer = -1
        """The layer whose convolution comes next, or came last: its functions are not told."""
        self.convolving: set[int] = set()
        """Layers that have announced a convolution."""

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pass the new keys and values through: joining them to the past is the node's work."""
        return key_states, value_states

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> None:
        """None, so that a layer takes its way of several tokens, which begins with `update`."""
        self._refuse_second(layer_idx, state_idx)

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> None:
        """None, for the same reason."""
        self._refuse_second(layer_idx, state_idx)

    def update_conv_state(
        self, conv_states: torch.Tensor, layer_idx: int, state_idx: int = 0, **_: Any
    ) -> torch.Tensor:
        """Pass the convolution's new inputs through, and note whose they are."""
        self._refuse_second(layer_idx, state_idx)
        self.recurrent_layer = layer_idx
        self.convolving.add(layer_idx)
        return conv_states

    def update_recurrent_state(
        self, recurrent_states: torch.Tensor | None, layer_idx: int, *_: Any, **__: Any
    ) -> None:
        """Do nothing: the node has written it. One that the model has computed is refused."""
        if recurrent_states is not None:
            raise ExportError(
                f"{self.architecture} has in its layer {layer_idx} a recurrence that our operators "
                f"cannot express (neither the gated delta rule nor Mamba 2), so it cannot be "
                f"exported."
            )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Unused: positions come from the graph's inputs."""
        return 0

    @property
    def has_previous_state(self) -> bool:
        """What transformers 4's layers ask that carry a state from step to step (Mamba)."""
        raise ExportError(
            f"{self.architecture} has layers that carry a state from token to token beside keys "
            f"and values, so it cannot be exported."
        )

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Unused: positions come from the graph's inputs."""
        return 0

    def get_mask_sizes(self, query: object, layer_idx: int) -> tuple[int, int]:
        """Unused: the mask is reduced to a window."""
        return 0, 0

    def _refuse_second(self, layer: int, number: int) -> None:
        if number:
            raise ExportError(
                f"{self.architecture} keeps more than one state of a kind in its layer {layer}, so "
                f"it cannot be exported."
            )
