"""Parses the recipe of a decoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_export.recipe import (
    CalibrationTable,
    DecoderExport,
    DecoderRecipe,
    DecoderTolerance,
    DraftTable,
    Precision,
    PrefixTable,
)
from model_export.recipe_tables import check_tables, parse_model, parse_source, parse_table
from model_export.reporting import ExportError

_LEAST_CALIBRATION = 1_000
"""Characters of a recipe's own calibration text: about 250 tokens."""


def decoder_recipe(tables: dict[str, Any], path: Path) -> DecoderRecipe:
    """Parses the tables of the file at `path`. Raises ExportError."""
    check_tables(tables, optional=("precision", "prefix", "calibration", "draft"))
    prefix, calibration, draft = (tables.get(each) for each in ("prefix", "calibration", "draft"))
    recipe = DecoderRecipe(
        name=path.stem,
        model=parse_model(tables["model"]),
        source=parse_source(tables["source"], path.parent),
        export=parse_table(tables["export"], DecoderExport, "export"),
        precision=parse_table(tables.get("precision", {}), Precision, "precision"),
        tolerance=parse_table(tables["tolerance"], DecoderTolerance, "tolerance"),
        prefix=None if prefix is None else parse_table(prefix, PrefixTable, "prefix"),
        calibration=None if calibration is None else _parse_calibration(calibration, path.parent),
        draft=None if draft is None else _parse_draft(draft),
    )
    _check_decoder(recipe)
    return recipe


def _check_decoder(recipe: DecoderRecipe) -> None:
    tolerance = recipe.tolerance
    checks = (
        (recipe.export.context_length >= 16, "[export] context_length must be at least 16"),
        (tolerance.max_kl >= 0, "[tolerance] max_kl must not be negative"),
        (
            0 <= tolerance.min_top1_agreement <= 1,
            "[tolerance] min_top1_agreement is a share: 0.0 to 1.0",
        ),
        (tolerance.max_perplexity_ratio > 0, "[tolerance] max_perplexity_ratio must be above 0"),
        (
            recipe.prefix is None or bool(recipe.prefix.system_prompt.strip()),
            "[prefix] system_prompt is empty: name one, or leave the table out",
        ),
        (
            recipe.calibration is None or recipe.precision.is_calibrated,
            '[calibration] is for affine blocks and weights = "auto" alone: leave it out',
        ),
    )
    for holds, problem in checks:
        if not holds:
            raise ExportError(f"{problem}.")


def _parse_calibration(table: dict[str, Any], directory: Path) -> CalibrationTable:
    """Reads the text, whose path is relative to `directory`."""
    named = parse_table(table, CalibrationTable, "calibration").text
    path = (directory / Path(named).expanduser()).resolve()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problem = f"the file {path} cannot be read: {error.strerror}. Name one of plain text"
    except UnicodeDecodeError:
        problem = f"the file {path} is not UTF-8: convert it"
    else:
        if len(text.strip()) >= _LEAST_CALIBRATION:
            return CalibrationTable(text)
        problem = (
            f"the file {path} has {len(text.strip())} characters, too few to measure anything: "
            f"give it at least {_LEAST_CALIBRATION:,} of what the model will read, better 10,000"
        )
    raise ExportError(
        f"[calibration] text: {problem}, or leave the table out, and the shipped text is read."
    )


def _parse_draft(table: dict[str, Any]) -> DraftTable:
    draft = parse_table(table, DraftTable, "draft")
    if (draft.recipe is None) == (draft.layers is None):
        raise ExportError(
            "[draft] takes exactly one of recipe, another model's, and layers, the number of the "
            "model's own first ones."
        )
    return draft
