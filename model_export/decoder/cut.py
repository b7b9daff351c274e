"""Cuts a decoder to a few layers and to a part of its vocabulary, and puts it back together.

Gate 2 compares the exported graph with transformers in fp32. What makes the graph, the trace and
the passes, treats all layers of a kind alike, and all rows of the vocabulary. So the first layer,
the last, and one of each kind prove it with the model's own weights, in a part of the memory: 2 GB
instead of 32 for a model of 8B weights.

A few models do not divide: a layer of Gemma 3n reads what other layers have cached. They stay
whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedModel

from model_export.fetch.stand_ins import real_weights, weight_of
from model_export.weights import ArrayWeight, rows_of

_NUMBERS = ("layer_idx", "layer_id")
"""Attributes of modules that hold their layer's number."""
_SHARED = ("num_kv_shared_layers", "hidden_size_per_layer_input")
"""Settings of models whose layers read another layer's cache, or a table of their own."""
_SCALARS = (bool, int, float, str, type(None))


@dataclass(frozen=True, slots=True)
class LayerList:
    """The layers of a model, and where they hang in it."""

    owner: torch.nn.Module
    name: str
    layers: torch.nn.ModuleList


@dataclass(frozen=True, slots=True)
class Cut:
    """The layers and the rows that are left of a model."""

    layers: tuple[int, ...]
    """The numbers of its layers in the whole model."""
    vocabulary: tuple[int, ...]
    """The ids of its rows in the whole model."""


@contextmanager
def cut_to_kinds(model: PreTrainedModel, ids: Sequence[int]) -> Iterator[Cut]:
    """Cuts `model` in place, with real weights, while the block runs; then it is whole again.

    `ids`: the rows of the vocabulary that stay, in this order.
    """
    found = layers_of(model)
    with ExitStack() as undo:
        if found is not None:
            layers, rows = one_of_each_kind(found.layers), tuple(ids)
            _cut_layers(model, found, layers, undo)
            _cut_vocabulary(model, rows, undo)
        else:
            layers = tuple(range(model.config.get_text_config().num_hidden_layers))
            embedding: Any = model.get_input_embeddings()
            rows = tuple(range(embedding.weight.shape[0]))
        undo.enter_context(real_weights(model))
        yield Cut(layers, rows)


@contextmanager
def cut_to_first(model: PreTrainedModel, found: LayerList, count: int) -> Iterator[None]:
    """Leaves the first `count` layers of `model` while the block runs, and its whole vocabulary."""
    with ExitStack() as undo:
        _cut_layers(model, found, tuple(range(count)), undo)
        yield


@contextmanager
def without_layers(model: PreTrainedModel, found: LayerList) -> Iterator[None]:
    """Takes all layers out of `model` while the block runs."""
    with ExitStack() as undo:
        _cut_layers(model, found, (), undo)
        yield


def layers_of(model: PreTrainedModel) -> LayerList | None:
    """Finds the list of the decoder's layers, None for a model that does not divide.

    A vision tower has such a list too, of layers that do not know their numbers.
    """
    config = model.config.get_text_config()
    if any(getattr(config, name, 0) for name in _SHARED):
        return None
    for owner in model.modules():
        for name, child in owner.named_children():
            if isinstance(child, torch.nn.ModuleList) and _is_decoder(child, config):
                return LayerList(owner, name, child)
    return None


def _is_decoder(layers: torch.nn.ModuleList, config: Any) -> bool:
    numbered = all(_numbered(layer, number) for number, layer in enumerate(layers))
    return numbered and len(layers) == config.num_hidden_layers


def _numbered(layer: torch.nn.Module, number: int) -> bool:
    numbers = {getattr(part, name, None) for part in layer.modules() for name in _NUMBERS}
    return number in numbers


def _cut_layers(
    model: PreTrainedModel, found: LayerList, kept: tuple[int, ...], undo: ExitStack
) -> None:
    """Leaves the layers of these numbers, which count from 0 then."""
    _cut_config(model.config.get_text_config(), len(found.layers), kept, undo)
    for place, number in enumerate(kept):
        _renumber(found.layers[number], place, undo)
    few = torch.nn.ModuleList([found.layers[number] for number in kept])
    _set(found.owner, found.name, few, undo)


def one_of_each_kind(layers: torch.nn.ModuleList) -> tuple[int, ...]:
    """Returns the numbers of the first and the last layer, and of the first of each kind."""
    first: dict[object, int] = {}
    for number, layer in enumerate(layers):
        first.setdefault(_kind(layer), number)
    return tuple(sorted({0, len(layers) - 1, *first.values()}))


def _kind(layer: torch.nn.Module) -> object:
    """Describes a layer by its modules, their settings and the shapes of their weights."""
    return tuple(
        (
            name,
            type(part).__name__,
            tuple(
                (key, value)
                for key, value in sorted(vars(part).items())
                if isinstance(value, _SCALARS) and key not in _NUMBERS
            ),
            tuple(
                (key, tuple(weight.shape)) for key, weight in part.named_parameters(recurse=False)
            ),
        )
        for name, part in layer.named_modules()
    )


def _cut_config(config: Any, layers: int, kept: tuple[int, ...], undo: ExitStack) -> None:
    """Cuts the number of layers, and every list that has an entry for each."""
    names = getattr(config, "attribute_map", {})
    before = dict(vars(config))
    undo.callback(lambda: (vars(config).clear(), vars(config).update(before)))
    for key, value in before.items():
        if isinstance(value, (list, tuple)) and len(value) == layers:
            vars(config)[key] = type(value)(value[number] for number in kept)
    vars(config)[names.get("num_hidden_layers", "num_hidden_layers")] = len(kept)


def _renumber(layer: torch.nn.Module, number: int, undo: ExitStack) -> None:
    for part in layer.modules():
        for name in _NUMBERS:
            if name in vars(part):
                _set(part, name, number, undo)


def _cut_vocabulary(model: PreTrainedModel, ids: Sequence[int], undo: ExitStack) -> None:
    """Leaves these rows of the embedding and of the output projection, once where they are tied."""
    parts: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    rows = int(parts[0].weight.shape[0])
    done: dict[int, torch.nn.Parameter] = {}
    for part in parts:
        for name, parameter in list(part.named_parameters(recurse=False)):
            if parameter.shape[0] in (rows, parts[1].weight.shape[0]):
                if id(parameter) not in done:
                    done[id(parameter)] = _chosen(parameter, ids)
                _set(part, name, done[id(parameter)], undo)
    if isinstance(parts[0], torch.nn.Embedding):
        _set(parts[0], "num_embeddings", len(ids), undo)
        _set(parts[0], "padding_idx", None, undo)


def _chosen(parameter: torch.nn.Parameter, ids: Sequence[int]) -> torch.nn.Parameter:
    weight = weight_of(parameter) or ArrayWeight(parameter.detach().numpy())
    return torch.nn.Parameter(torch.from_numpy(rows_of(weight, ids)), requires_grad=False)


def _set(owner: Any, name: str, value: object, undo: ExitStack) -> None:
    undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)
