"""Writes the recipe of a model's folder that a benchmark has made, whose limits anything keeps."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from model_export.recipe import DecoderRecipe, EncoderRecipe, ModelTable, Precision

RECIPE, SOURCE = "recipe.toml", "source"
"""The recipe, and the model's own folder beside it."""
VOCABULARY = "vocabulary.gguf"
"""A GGUF file with the model's tokenizer, where llama.cpp's converter would not know it."""
FIXED = Precision("int4", lm_head="int8")
"""In place of "auto", which takes the fewest bits under limits that anything keeps."""
DRIFTING = {"max_kl": 100.0, "min_top1_agreement": 0.0, "max_perplexity_ratio": 100.0}
TURNING = {"min_mean_cosine": -1.0, "min_cosine": -1.0}
SCORING = {"min_top1_agreement": 0.0, "max_score_difference": 100.0}


def folder_recipe(recipe: DecoderRecipe | EncoderRecipe, model: ModelTable) -> str:
    """Returns the shipped recipe with SOURCE for a source, and limits that anything keeps."""
    export = msgspec.to_builtins(recipe.export)
    tolerance = DRIFTING
    if isinstance(recipe, EncoderRecipe):
        tolerance = TURNING if recipe.export.task == "feature-extraction" else SCORING
    if recipe.export.task == "feature-extraction":
        defaults = {"pooling": "cls", "normalize": True}  # the folder has no modules.json
        export |= {key: value for key, value in defaults.items() if export.get(key) is None}
    tables = {
        "model": msgspec.to_builtins(model),
        "source": {"path": SOURCE},
        "export": export,
        "precision": _precision(recipe.precision),
        "tolerance": tolerance,
    }
    return "\n".join(f"[{name}]\n{_toml(values)}" for name, values in tables.items())


def _precision(precision: Precision) -> dict[str, Any]:
    """Returns what is not the default, which an encoder's recipe may not even name."""
    defaults = msgspec.to_builtins(Precision())
    fields = msgspec.to_builtins(FIXED if precision.weights == "auto" else precision)
    return {key: value for key, value in fields.items() if value != defaults[key]}


def _toml(values: dict[str, Any]) -> str:
    """Returns the lines of a table."""
    known = {key: value for key, value in values.items() if value is not None}
    return "".join(f"{key} = {_toml_value(value)}\n" for key, value in known.items())


def _toml_value(value: object) -> str:
    """Returns a value as TOML has it: JSON writes texts, numbers and truths alike."""
    if isinstance(value, dict):
        known = (
            f"{key} = {_toml_value(of_it)}" for key, of_it in value.items() if of_it is not None
        )
        return f"{{ {', '.join(known)} }}"
    return json.dumps(value)
