"""Describes the shipped recipes as a table for people: `--list`.

It reads the recipes and recipe_sizes.json, which has what the dry run says of each: that itself
takes a model's configuration, and torch. A test holds the file to it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from model_export.recipe import DecoderRecipe, EncoderRecipe
from model_export.recipe_loader import load_recipe, shipped_recipes

SIZES = Path(__file__).parent.parent / "recipe_sizes.json"
HEAD = ("recipe", "task", "download", "artefact", "memory", "licence", "precision")
NUMBERS = range(2, 5)
HINT = """
download: the published weights. artefact: in the image. memory: at run time, every slot full, with
the default settings. All in MB; the first two are about 1 % off, but where the precision is auto:
there the export finds how many bits the limits take, and the artefact is counted as compact5.
For your settings, a model of your own, and the machines: python -m model_export --dry-run RECIPE"""


class RecipeSize(msgspec.Struct, frozen=True):
    """Megabytes of one shipped recipe's model."""

    download: int
    artefact: int
    memory: int


def shipped_sizes() -> dict[str, RecipeSize]:
    """Returns the sizes by the recipe's name."""
    return msgspec.json.decode(SIZES.read_bytes(), type=dict[str, RecipeSize])


def listing() -> str:
    """Returns a line for each recipe, below a head, above a legend."""
    sizes = shipped_sizes()
    rows = [HEAD, *(_row(load_recipe(name), sizes[name]) for name in shipped_recipes())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join([*(_line(row, widths) for row in rows), HINT])


def _row(recipe: DecoderRecipe | EncoderRecipe, size: RecipeSize) -> tuple[str, ...]:
    megabytes = (f"{count:,}" for count in (size.download, size.artefact, size.memory))
    precision = recipe.precision.describe()
    return recipe.name, recipe.export.task, *megabytes, recipe.model.licence, precision


def _line(row: tuple[str, ...], widths: list[int]) -> str:
    """Aligns words on the left, numbers on the right."""
    cells = [
        f"{cell:>{width}}" if column in NUMBERS else f"{cell:<{width}}"
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()
