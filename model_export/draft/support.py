"""Refuses a draft model by the models alone, before anything is computed with their weights."""

from __future__ import annotations

from transformers import PreTrainedModel

from handlers.artifact.graph_contract import BY_POSITION
from model_export.decoder.cut import LayerList, layers_of
from model_export.recipe import DraftTable
from model_export.reporting import ExportError
from model_export.trace.cache_spec import cache_spec
from model_export.trace.support import check_exportable


def check_draft(model: PreTrainedModel, draft: DraftTable) -> None:
    """Raises ExportError where `model` cannot take drafts, or not of its own first layers."""
    _refuse_states(model)
    if draft.layers is not None:
        first_layers(model, draft.layers)


def check_sibling(model: PreTrainedModel, context_length: int) -> None:
    """Raises ExportError where `model` cannot guess for another in a context of this length."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and positions < context_length:
        raise ExportError(
            f"it has positions for {positions:,} tokens, and [export] context_length is "
            f"{context_length:,}: lower that, or name another."
        )
    check_exportable(model, context_length)
    _refuse_states(model)


def _refuse_states(model: PreTrainedModel) -> None:
    if has_states(model):
        raise ExportError(
            f"[draft] is for models that attend in every layer. {type(model).__name__} has layers "
            f"that keep a state of fixed size, which does not go back to where it was before a "
            f"wrong guess."
        )


def has_states(model: PreTrainedModel) -> bool:
    """Tells whether a layer keeps a state of fixed size."""
    return any(shape.kind not in BY_POSITION for shape in cache_spec(model))


def first_layers(model: PreTrainedModel, count: int) -> LayerList:
    """Returns the layers of `model`, of which the first `count` are to be its draft model.

    Raises ExportError where it has no more than these, or does not divide.
    """
    found = layers_of(model)
    if found is None:
        raise ExportError(
            f"[draft] layers: {type(model).__name__} does not divide, since its layers read what "
            f"others have cached or a table of their own. Name a recipe, or leave the table out."
        )
    if count >= len(found.layers):
        raise ExportError(
            f"[draft] layers is {count}, and the model has {len(found.layers)}: name fewer, since "
            f"a draft model has to be faster than the model."
        )
    return found
