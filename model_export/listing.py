"""The shipped recipes as a table for people: `python -m model_export --list`.

It reads the recipes and nothing else, so it knows no sizes: those take a model's configuration, and
the dry run has them.
"""

from __future__ import annotations

from model_export.encoder.recipe import EncoderRecipe, load_any_recipe
from model_export.recipe import Recipe, shipped_recipes

HEAD = ("recipe", "task", "model", "precision", "licence")
HINT = "Sizes, memory and machines: python -m model_export --dry-run RECIPE"


def listing() -> str:
    """A line for each recipe, below a head, above a hint."""
    rows = [HEAD, *(_row(load_any_recipe(name)) for name in shipped_recipes())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, "", HINT])


def _row(recipe: Recipe | EncoderRecipe) -> tuple[str, ...]:
    precision = recipe.precision.describe()
    return recipe.name, recipe.export.task, recipe.model.id, precision, recipe.model.licence
