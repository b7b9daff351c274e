"""A causal language model behind the graph contract, as a module that torch can trace.

Knows how the contract's inputs become what a transformers model wants: positions from the
lengths, a SharedCache from the past buffers, logits only where they are wanted.
Called by the package.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from model_export.convert.attention import Attention, attention_of
from model_export.convert.cache_shapes import CacheShape
from model_export.convert.recurrent import Recurrence, recurrence_of
from model_export.convert.recurrent_operators import RecurrentOperators
from model_export.convert.shared_cache import SharedCache


class Decoder(torch.nn.Module):
    """`forward` takes and returns the contract's tensors, in the contract's order."""

    def __init__(
        self, model: PreTrainedModel, context_length: int, shapes: Sequence[CacheShape]
    ) -> None:
        super().__init__()
        self.model = model
        self.context_length = context_length
        self.kept = [(shape.layer, shape.kind) for shape in shapes]

    def forward(
        self,
        input_ids: torch.Tensor,
        query_seqlens: torch.Tensor,
        seqlens_k: torch.Tensor,
        logits_indices: torch.Tensor,
        *past: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """Returns logits [logits, vocabulary], then the present for every past."""
        architecture = type(self.model).__name__
        cache = SharedCache(architecture, dict(zip(self.kept, past, strict=True)))
        attention = Attention(
            architecture=architecture,
            context_length=self.context_length,
            cache=cache,
            seqlens_k=seqlens_k,
            query_seqlens=query_seqlens,
        )
        recurrent = RecurrentOperators(cache, seqlens_k, query_seqlens)
        with (
            attention_of(self.model, attention.attend, attention.mask),
            recurrence_of(self.model, Recurrence(recurrent.convolve, recurrent.attend_linearly)),
            _WantedLogits(self.model, logits_indices),
        ):
            outputs = self.model(
                input_ids=input_ids,
                position_ids=self._positions(input_ids, query_seqlens, seqlens_k),
                past_key_values=cache,
                use_cache=True,
                return_dict=True,
            )
        return outputs["logits"], *(cache.present[kept] for kept in self.kept)

    def _positions(
        self, input_ids: torch.Tensor, query_seqlens: torch.Tensor, seqlens_k: torch.Tensor
    ) -> torch.Tensor:
        """int64 [batch, sequence]: past length + column.

        Held inside the context: where the cache is larger, padding columns may lie behind it,
        and a table of learned positions ends there.
        """
        past = (seqlens_k + 1 - query_seqlens).to(torch.int64)
        positions = past.unsqueeze(1) + torch.arange(input_ids.shape[1])
        return positions.clamp(max=self.context_length - 1)


class _WantedLogits:
    """Hands the output projection only the wanted rows, [logits, hidden].

    A hook rather than transformers' logits_to_keep, which takes the same columns of every row.
    """

    def __init__(self, model: PreTrainedModel, indices: torch.Tensor) -> None:
        self._head = model.get_output_embeddings()
        self._indices = indices

    def __enter__(self) -> None:
        self._hook = self._head.register_forward_pre_hook(self._select)

    def __exit__(self, *_: object) -> None:
        self._hook.remove()

    def _select(
        self, _: torch.nn.Module, inputs: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, ...]:
        hidden = inputs[0]
        return (hidden.reshape(-1, hidden.shape[-1]).index_select(0, self._indices),)
