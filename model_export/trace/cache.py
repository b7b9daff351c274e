"""The cache that a traced transformers model is given: it passes everything through.

What a layer keeps from step to step lies in buffers of the graph, which the trace's own nodes read
and write in place. SharedCache has the methods of transformers' caches and holds nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache

from handlers.artifact.graph_contract import CacheKind
from model_export.reporting import ExportError


class SharedCache(Cache):
    """Stands in for transformers' Cache, and carries the graph's past and present buffers.

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
        """The layer whose convolution comes next, or came last."""
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
        """Passes the new keys and values through: the node joins them to the past."""
        return key_states, value_states

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> None:
        """Returns None, so that a layer runs its code for several tokens."""
        self._refuse_second(layer_idx, state_idx)

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> None:
        """Returns None, for the same reason."""
        self._refuse_second(layer_idx, state_idx)

    def update_conv_state(
        self, conv_states: torch.Tensor, layer_idx: int, state_idx: int = 0, **_: Any
    ) -> torch.Tensor:
        """Passes the convolution's new inputs through, and notes their layer."""
        self._refuse_second(layer_idx, state_idx)
        self.recurrent_layer = layer_idx
        self.convolving.add(layer_idx)
        return conv_states

    def update_recurrent_state(
        self, recurrent_states: torch.Tensor | None, layer_idx: int, *_: Any, **__: Any
    ) -> None:
        """Does nothing, as the node has written it. Refuses a state that the model computed."""
        if recurrent_states is not None:
            raise ExportError(
                f"{self.architecture} has in its layer {layer_idx} a recurrence that our operators "
                f"cannot express (neither the gated delta rule nor Mamba 2), so it cannot be "
                f"exported."
            )

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Unused, as positions come from the graph's inputs."""
        return 0

    @property
    def has_previous_state(self) -> bool:
        """Refuses layers of transformers 4 that carry a state from step to step (Mamba)."""
        raise ExportError(
            f"{self.architecture} has layers that carry a state from token to token beside keys "
            f"and values, so it cannot be exported."
        )

    def get_query_offset(self, layer_idx: int = 0) -> int:
        """Unused, as positions come from the graph's inputs."""
        return 0

    def get_mask_sizes(self, query: object, layer_idx: int) -> tuple[int, int]:
        """Unused, as the mask is reduced to a window."""
        return 0, 0

    def _refuse_second(self, layer: int, number: int) -> None:
        if number:
            raise ExportError(
                f"{self.architecture} keeps more than one state of a kind in its layer {layer}, so "
                f"it cannot be exported."
            )
