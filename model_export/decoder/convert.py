"""Traces a decoder of transformers into an ONNX graph with the inputs and outputs of the contract.

TraceableDecoder turns the contract's inputs into what a transformers model wants: positions from
the lengths, a SharedCache from the past buffers, logits only where they are wanted.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
import torch
from transformers import PreTrainedModel

from handlers.artifact import graph_contract as contract
from model_export.fuse.graphs import KINDLING, MICROSOFT
from model_export.trace.attention import Attention, attention_of
from model_export.trace.cache import SharedCache
from model_export.trace.cache_spec import CacheShape, cache_spec
from model_export.trace.patches import traceable
from model_export.trace.recurrent import Recurrence, RecurrentOperators, recurrence_of
from model_export.trace.support import check_exportable
from model_export.trace.tracing import NoProducts, trace


def convert(model: PreTrainedModel, context_length: int) -> ir.Model:
    """Traces `model` in float32 for sequences of up to `context_length` tokens.

    Raises ExportError, naming the architecture and the reason, for what cannot be expressed.
    """
    check_exportable(model, context_length)
    if not _in_float32(model):  # transformers 5 refuses float() on a model out of a GGUF file
        model = model.float()
    shapes = cache_spec(model)
    decoder = TraceableDecoder(model, context_length, shapes).eval()
    with traceable(model):
        graph = _trace(decoder, shapes)
    _state_output_shapes(graph, decoder)
    graph.metadata_props["context_length"] = str(context_length)
    return graph


def _in_float32(model: PreTrainedModel) -> bool:
    """Looks at buffers too: Apertus has some in bfloat16 beside weights in float32."""
    tensors = (*model.parameters(), *model.buffers())
    return all(each.dtype == torch.float32 for each in tensors if each.is_floating_point())


def _past_example(shape: CacheShape) -> torch.Tensor:
    """Returns an example of what a layer keeps, of two rows."""
    if shape.kind in contract.BY_POSITION:
        kv_heads, head_dim = shape.sizes
        return torch.zeros(2, kv_heads, 5, head_dim)
    return torch.zeros(2, *shape.sizes)


def _trace(decoder: TraceableDecoder, shapes: list[CacheShape]) -> ir.Model:
    """Traces two rows: three tokens, and two of padding."""
    control = (
        torch.ones((2, 3), dtype=torch.int64),
        torch.tensor([3, 1], dtype=torch.int32),
        torch.tensor([2, 0], dtype=torch.int32),
        torch.tensor([2, 3], dtype=torch.int64),
    )
    return trace(
        decoder,
        (*control, *map(_past_example, shapes)),
        inputs=[*contract.CONTROL_INPUTS, *(shape.past for shape in shapes)],
        outputs=[contract.LOGITS, *(shape.present for shape in shapes)],
        dynamic_axes=_dynamic_axes(shapes),
        domains=sorted(
            {MICROSOFT if shape.kind in contract.BY_POSITION else KINDLING for shape in shapes}
        ),
    )


def _dynamic_axes(shapes: list[CacheShape]) -> dict[str, dict[int, str]]:
    axes = {
        contract.INPUT_IDS: {0: contract.BATCH, 1: contract.SEQUENCE},
        contract.QUERY_SEQLENS: {0: contract.BATCH},
        contract.SEQLENS_K: {0: contract.BATCH},
        contract.LOGITS_INDICES: {0: contract.LOGITS_COUNT},
        contract.LOGITS: {0: contract.LOGITS_COUNT},
    }
    for shape in shapes:
        cache = {0: contract.BATCH}
        if shape.kind in contract.BY_POSITION:
            cache[2] = contract.CAPACITY
        axes |= {shape.past: cache, shape.present: cache}
    return axes


def _state_output_shapes(model: ir.Model, decoder: TraceableDecoder) -> None:
    """Gives every output the shape that the contract says; the trace knows only its axes."""
    logits, *presents = model.graph.outputs
    vocabulary = decoder.model.get_output_embeddings().weight.shape[0]
    logits.shape = ir.Shape([contract.LOGITS_COUNT, vocabulary])
    pasts = model.graph.inputs[len(contract.CONTROL_INPUTS) :]
    for present, past in zip(presents, pasts, strict=True):
        present.shape = past.shape


class TraceableDecoder(torch.nn.Module):
    """A causal language model as a module that torch can trace.

    `forward` takes and returns the contract's tensors, in the contract's order.
    """

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
            NoProducts(),
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
        """Returns int64 [batch, sequence]: past length + column.

        Held inside the context: where the cache is larger, padding columns may lie beyond it,
        and a table of learned positions ends there.
        """
        past = (seqlens_k + 1 - query_seqlens).to(torch.int64)
        positions = past.unsqueeze(1) + torch.arange(input_ids.shape[1])
        return positions.clamp(max=self.context_length - 1)


class _WantedLogits:
    """Gives the output projection only the wanted rows, [logits, hidden].

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
