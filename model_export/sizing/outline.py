"""Measures a model by its configuration, without the memory of its weights.

The model is built of torch's fake tensors, which have shapes and nothing else, and passes the
checks that the export will make. (On the meta device it could be built, but not run: rotary
embeddings enter torch.autocast, which does not know that device.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from handlers.artifact.graph_contract import BY_POSITION
from model_export.decoder.cut import layers_of, one_of_each_kind
from model_export.draft.support import check_draft
from model_export.fetch.load import (
    CLASSIFIER,
    DECODER,
    TRANSFORMER,
    UNREADABLE,
    ModelKind,
    reason_of,
)
from model_export.recipe import DecoderRecipe, EncoderRecipe
from model_export.reporting import ExportError
from model_export.sizing.footprint import Layers, Matrix, Outline
from model_export.trace.cache_spec import cache_spec
from model_export.trace.support import check_exportable

_NOT_EXPORTED = ("vision", "audio", "multi_modal")
"""In the names of modules that see and hear: the graph has none of them."""


def outline_of(config: PretrainedConfig, recipe: DecoderRecipe | EncoderRecipe) -> Outline:
    """Measures the model of a configuration. Raises ExportError where it cannot be exported."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.symbolic_shapes import ShapeEnv

    kind = _kind_of(recipe)
    with FakeTensorMode(shape_env=ShapeEnv()):  # experts take as many tokens as choose them
        model = _build(config, kind.auto_class)
        if isinstance(recipe, EncoderRecipe):
            _check_head(model, kind)
            return outline_of_model(model, recipe)
        cache, state = _kept_values(model, recipe.export.context_length)
        if recipe.draft is not None:
            check_draft(model, recipe.draft)
        return replace(outline_of_model(model, recipe), cache=cache, state=state)


def outline_of_model(model: PreTrainedModel, recipe: DecoderRecipe | EncoderRecipe) -> Outline:
    """Measures a model that is loaded, whose weights may be stand-ins, but for its cache."""
    if isinstance(recipe, EncoderRecipe):
        return _measure(model, without=_kind_of(recipe).unused)
    return replace(_measure(model, recipe.export.context_length), layers=_layers(model))


def _kind_of(recipe: DecoderRecipe | EncoderRecipe) -> ModelKind:
    """Returns the kind of model that a recipe's source is measured as.

    Of a language model that judges, the graph has no output projection.
    """
    if isinstance(recipe, DecoderRecipe):
        return DECODER
    export = recipe.export
    bare = export.task == "feature-extraction" or export.judge is not None
    return TRANSFORMER if bare else CLASSIFIER


def _check_head(model: PreTrainedModel, kind: ModelKind) -> None:
    """Refuses a decoder's configuration: it has no weights that make labels of its states."""
    declared = model.config.architectures or []
    if kind is CLASSIFIER and declared and all(name.endswith("ForCausalLM") for name in declared):
        base = f"{model.base_model_prefix}."
        names = (name for name, _ in model.named_parameters() if not name.startswith(base))
        if error := kind.lacks(f"{', '.join(declared)} of its config.json", names):
            raise error


def _build(config: PretrainedConfig, auto_class: str) -> PreTrainedModel:
    auto: Any = getattr(transformers, auto_class)
    try:
        model = auto.from_config(config, dtype=torch.float32, attn_implementation="eager")
    except UNREADABLE as error:
        raise ExportError(
            f"transformers cannot make a model of its config.json: {reason_of(error)}"
        ) from error
    return cast("PreTrainedModel", model.eval())


def _kept_values(model: PreTrainedModel, context_length: int) -> tuple[int, int]:
    """Counts the values that a token adds to the cache, and those of states of fixed size.

    Raises ExportError.
    """
    check_exportable(model, context_length)
    kept = {True: 0, False: 0}
    for shape in cache_spec(model):
        kept[shape.kind in BY_POSITION] += math.prod(shape.sizes)
    return kept[True], kept[False]


def _layers(model: PreTrainedModel) -> Layers:
    found = layers_of(model)
    if found is None:
        values = _values_of(model)
        return Layers(model.config.get_text_config().num_hidden_layers, values, values)
    each = [_values_of(layer) for layer in found.layers]
    cut = sum(each[number] for number in one_of_each_kind(found.layers))
    return Layers(len(each), max(each), cut)


def _values_of(module: torch.nn.Module) -> int:
    return sum(map(torch.numel, module.parameters()))


def _measure(model: PreTrainedModel, tokens: int = 0, without: tuple[str, ...] = ()) -> Outline:
    """Counts values; `tokens` are the positions of the rotary embeddings' tables."""
    weights = list(_matrices(model, without))
    parameters = {
        id(parameter): parameter.numel()
        for name, parameter in model.named_parameters()
        if _exported(name, without)
    }
    matrices = sum(matrix.rows * matrix.columns for matrix in weights)
    config: Any = model.config.get_text_config()
    return Outline(
        architecture=type(model).__name__,
        parameters=sum(parameters.values()),
        matrices=tuple(weights),
        plain=sum(parameters.values()) - matrices + _rotary_values(model, tokens),
        cache=0,
        state=0,
        vocabulary=int(config.vocab_size),
        heads=int(getattr(config, "num_attention_heads", 1)),
        layers=None,
    )


def _matrices(model: PreTrainedModel, without: tuple[str, ...]) -> Iterator[Matrix]:
    """Yields linear layers and embeddings, a tied pair once."""
    output = model.get_output_embeddings()
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, (torch.nn.Linear, Conv1D, torch.nn.Embedding)):
            continue
        if id(module.weight) in seen or not _exported(name, without):
            continue
        seen.add(id(module.weight))
        rows, columns = module.weight.shape
        if isinstance(module, Conv1D):  # GPT-2's linear layers are stored transposed
            rows, columns = columns, rows
        yield Matrix(rows, columns, head=isinstance(module, torch.nn.Embedding) or module is output)


def _rotary_values(model: PreTrainedModel, tokens: int) -> int:
    """Counts cosines and sines, half a head each, for every position."""
    frequencies = [
        buffer.numel()
        for name, buffer in model.named_buffers()
        if name.endswith("inv_freq") and "original" not in name
    ]
    return sum(2 * tokens * count for count in frequencies)


def _exported(name: str, without: tuple[str, ...]) -> bool:
    return not name.startswith(without) and not any(part in name for part in _NOT_EXPORTED)
