"""A transformers model becomes an ONNX graph in the graph contract.

architecture.py knows what must be patched before torch can trace a model, cache_shapes.py asks it
for its cache, and trace.py traces decoder.Decoder. Called by the pipeline; `check` by the dry run
too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
import torch
from transformers import PreTrainedModel

from handlers.artifact import graph_contract as contract
from model_export.convert.architecture import check_architecture, traceable
from model_export.convert.cache_shapes import CacheShape, cache_shapes
from model_export.convert.decoder import Decoder
from model_export.convert.lengths import check_length
from model_export.convert.trace import quiet, trace
from model_export.convert.window import Window
from model_export.errors import ExportError
from model_export.fuse.graphs import KINDLING, MICROSOFT
from model_export.save import save

__all__ = ["check", "convert", "kept_by", "save"]


def convert(model: PreTrainedModel, context_length: int) -> ir.Model:
    """Trace `model` in float32 for sequences of up to `context_length` tokens.

    Raises ExportError, naming the architecture and the reason, for what cannot be expressed.
    """
    check(model, context_length)
    if not _in_float32(model):  # transformers 5 refuses float() on a model out of a GGUF file
        model = model.float()
    shapes = kept_by(model)
    decoder = Decoder(model, context_length, shapes).eval()
    with _traceable(model):
        graph = _trace(decoder, shapes)
    _state_output_shapes(graph, decoder)
    graph.metadata_props["context_length"] = str(context_length)
    return graph


def _in_float32(model: PreTrainedModel) -> bool:
    """Buffers too: Apertus has some in bfloat16 beside weights in float32."""
    tensors = (*model.parameters(), *model.buffers())
    return all(each.dtype == torch.float32 for each in tensors if each.is_floating_point())


def kept_by(model: PreTrainedModel) -> list[CacheShape]:
    """What every layer keeps from step to step. Raises ExportError where that cannot be seen."""
    with _traceable(model):
        return cache_shapes(model)


def check(model: PreTrainedModel, context_length: int) -> None:
    """Raises ExportError for what can be seen to fail without a trace, and without weights."""
    check_architecture(model)
    config, name = model.config, type(model).__name__
    limit = getattr(config, "max_position_embeddings", None)
    if context_length < 2 or (limit is not None and context_length > limit):
        raise ExportError(
            f"context_length is {context_length}, but {name} has positions for 2 to {limit}."
        )
    check_length(model, context_length)
    if not getattr(config, "scale_attn_weights", True) or getattr(
        config, "scale_attn_by_inverse_layer_idx", False
    ):
        raise ExportError(
            f"{name} scales its attention in a way that transformers' attention interface does "
            f"not pass on (scale_attn_weights, scale_attn_by_inverse_layer_idx), so it cannot be "
            f"exported."
        )


def _past_example(shape: CacheShape) -> torch.Tensor:
    """An example of what a layer keeps, of two rows."""
    if shape.kind in contract.BY_POSITION:
        kv_heads, head_dim = shape.sizes
        return torch.zeros(2, kv_heads, 5, head_dim)
    return torch.zeros(2, *shape.sizes)


def _trace(decoder: Decoder, shapes: list[CacheShape]) -> ir.Model:
    """Trace two rows: three tokens, and two of padding."""
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


@contextmanager
def _traceable(model: PreTrainedModel) -> Iterator[None]:
    """Where torch can trace the model. What fails in there fails as an ExportError."""
    try:
        with traceable(model), torch.no_grad(), quiet():
            yield
    except ExportError:
        raise
    except Exception as error:
        raise ExportError(_why_not(type(model).__name__, error)) from error


def _why_not(name: str, error: Exception) -> str:
    if isinstance(error, AttributeError) and isinstance(error.obj, Window):
        return (
            f"{name} computes with the mask of its attention instead of handing it on, which "
            f"GroupQueryAttention cannot express, so it cannot be exported."
        )
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"torch cannot trace {name}, so it cannot be exported: {reason}"


def _state_output_shapes(model: ir.Model, decoder: Decoder) -> None:
    """Give every output the shape that the contract says; the trace knows only its axes."""
    logits, *presents = model.graph.outputs
    vocabulary = decoder.model.get_output_embeddings().weight.shape[0]
    logits.shape = ir.Shape([contract.LOGITS_COUNT, vocabulary])
    pasts = model.graph.inputs[len(contract.CONTROL_INPUTS) :]
    for present, past in zip(presents, pasts, strict=True):
        present.shape = past.shape
