"""Tables of what the dry run says of each shipped recipe, for docs/recipes.md and the list.

`python -m scripts.recipes` writes both anew: of the recipes that take the installed transformers.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import msgspec

from handlers.config import Settings
from model_export.recipe import DecoderRecipe, EncoderRecipe
from model_export.recipe_loader import shipped_recipes
from model_export.sizing.dry_run import slots_of
from model_export.sizing.footprint import (
    Outline,
    cache_bytes,
    machine_for,
    run_time_bytes,
    token_bytes,
    weights_of,
)
from model_export.sizing.listing import SIZES, RecipeSize, shipped_sizes
from model_export.sizing.outline import outline_of
from tests.support.configurations import DOWNLOADS, exportable, shipped

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "recipes.md"
BENCHMARKS = ROOT / "BENCHMARKS.md"
SECTION = "## Other models, end to end\n"
"""Of BENCHMARKS.md: a row for each model that bench.sizes exported, served and asked."""
HEAD = (
    "| recipe | task | parameters | weights | cache, a token | memory | Lambda | Cloud Run "
    "| verified with |\n|---|---|---:|---:|---:|---:|---:|---:|---|\n"
)
WITH_WEIGHTS = ("all-minilm-l6-v2", "smollm2-135m")
"""Recipes whose source is a package that is installed wherever the tests run."""
WITH_RELATIVES = {"gemma-3-270m": "its base model's weights"}
"""Recipes of whose models only a relative's weights could be had."""


def rows() -> dict[str, str]:
    """The rows of the table by the recipe's name."""
    return {name: _row(name) for name in exportable()}


def written_rows() -> dict[str, str]:
    """The rows as the page has them."""
    found = _split()[1].splitlines(keepends=True)
    return {row.split("`")[1]: row for row in found}


def write_table() -> None:
    """Replaces the page's table, in the order of the recipes' names.

    A new recipe that takes another transformers has its row once that one has written it too.
    """
    new = rows()
    before, _, after = _split()
    known = written_rows() | new
    table = HEAD + "".join(known[name] for name in shipped_recipes() if name in known)
    PAGE.write_text(before + table + after, encoding="utf-8")


def measured() -> set[str]:
    """Recipes that have a row in BENCHMARKS.md."""
    _, _, section = BENCHMARKS.read_text(encoding="utf-8").partition(SECTION)
    return {*re.findall(r"^\| `([^`]+)` \|", section.partition("\n## ")[0], re.MULTILINE)}


def sizes() -> dict[str, RecipeSize]:
    """The sizes that `--list` shows."""
    return {name: _size(name) for name in exportable()}


def write_sizes() -> None:
    """Replaces what `--list` shows."""
    new = sizes()
    known = shipped_sizes() | new
    ordered = {name: known[name] for name in shipped_recipes() if name in known}
    encoded = msgspec.json.format(msgspec.json.encode(ordered), indent=2)
    SIZES.write_bytes(encoded + b"\n")


@cache
def _measured(name: str) -> tuple[DecoderRecipe | EncoderRecipe, Outline]:
    recipe, config = shipped(name)
    return recipe, outline_of(config, recipe)


def _size(name: str) -> RecipeSize:
    recipe, outline = _measured(name)
    weights = weights_of(outline, recipe.precision)
    slots, tokens = slots_of(recipe, Settings.from_environ({}))
    cache = slots * cache_bytes(outline, recipe.precision, tokens)
    memory = run_time_bytes(outline, weights, cache)
    counts = (DOWNLOADS[name], weights.total, memory)
    return RecipeSize(*(round(count / 1e6) for count in counts))


def _verified_with(name: str) -> str:
    if name in WITH_WEIGHTS:
        return "its weights"
    return WITH_RELATIVES.get(name, "random weights" if name in measured() else "configuration")


def _split() -> tuple[str, str, str]:
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(HEAD)
    rows, blank, after = rest.partition("\n\n")
    return before, rows + "\n" if rows else "", blank[1:] + after


def _row(name: str) -> str:
    recipe, outline = _measured(name)
    weights = weights_of(outline, recipe.precision)
    slots, tokens = slots_of(recipe, Settings.from_environ({}))
    slot = cache_bytes(outline, recipe.precision, tokens)
    memory = run_time_bytes(outline, weights, slots * slot)
    machine = machine_for(outline, weights, memory)
    cells = (
        f"`{name}`",
        recipe.export.task,
        f"{outline.parameters / 1e6:,.0f} M",
        f"{weights.total / 1e6:,.0f} MB",
        f"{token_bytes(outline, recipe.precision) / 1e3:,.0f} kB" if slots else "",
        f"{memory / 1e6:,.0f} MB",
        f"{machine.lambda_mb:,} MB" if machine.lambda_mb else "does not fit",
        f"{machine.cloud_run_cpus} CPU, {machine.cloud_run_mib:,} MiB"
        if machine.cloud_run_cpus
        else "does not fit",
        _verified_with(name),
    )
    return f"| {' | '.join(cells)} |\n"
