"""Refuses an export that this machine or its own budget cannot hold, before it has taken long."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from model_export.recipe import DecoderRecipe, EncoderRecipe, HubSource
from model_export.reporting import Report
from model_export.sizing.cost import cost_of
from model_export.sizing.dry_run import fetch_config
from model_export.sizing.footprint import Outline
from model_export.sizing.limits import check_budget, check_limits, limits_of
from model_export.sizing.outline import outline_of, outline_of_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check_before_download(recipe: DecoderRecipe | EncoderRecipe, out: Path, report: Report) -> None:
    """Refuses by the configuration what would be downloaded in vain. Raises ExportError."""
    if isinstance(recipe.source, HubSource):
        _check(outline_of(fetch_config(recipe.source), recipe), recipe, out, report)


def check_loaded(
    model: PreTrainedModel, recipe: DecoderRecipe | EncoderRecipe, out: Path, report: Report
) -> None:
    """Refuses a model that was on this disk, in milliseconds. Raises ExportError."""
    if not isinstance(recipe.source, HubSource):
        _check(outline_of_model(model, recipe), recipe, out, report)


def _check(
    outline: Outline, recipe: DecoderRecipe | EncoderRecipe, out: Path, report: Report
) -> None:
    check_budget(recipe.precision, outline)
    check_limits(cost_of(outline, recipe.precision), limits_of(out), report)
