"""An encoder's recipe: the tables of recipe.py, of which two have other keys.

    [export]
    task = "feature-extraction"       # or "text-classification", "text-ranking"
    max_tokens = 256                  # may be left out: as the model says
    pooling = "cls"                   # these two only for a model without modules.json,
    normalize = true                  # sentence-transformers' own word on them

    [tolerance]                       # of "feature-extraction"
    min_mean_cosine = 0.999           # of the quantised embeddings to the fp32 ones
    min_cosine = 0.995

    [tolerance]                       # of the other two
    min_top1_agreement = 0.98         # the same label, or the same best document of a query
    max_score_difference = 0.05       # of scores, as clients see them

It knows nothing of models; source.py asks them for what a recipe leaves out.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from model_export.errors import ExportError
from model_export.precision import Precision
from model_export.recipe import (
    AnyExport,
    AnyRecipe,
    Document,
    Recipe,
    check_tables,
    load_recipe,
    naming,
    parse_model,
    read_document,
)
from model_export.source import GgufSource, PackageSource, parse_source
from model_export.tables import convert_table, suggest

EncoderTask = Literal["feature-extraction", "text-classification", "text-ranking"]
TASKS = ("text-generation", "feature-extraction", "text-classification", "text-ranking")
POOLING = ("cls", "max", "mean", "mean_sqrt_len", "weighted_mean", "last_token")


class EncoderExport(AnyExport, frozen=True):
    """[export]."""

    task: EncoderTask
    max_tokens: int | None = None
    pooling: str | None = None
    normalize: bool | None = None


class EmbeddingTolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """[tolerance] of embeddings: the quantised graph's cosine to the fp32 graph's."""

    min_mean_cosine: float
    min_cosine: float


class ScoreTolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """[tolerance] of a classifier or a ranker."""

    min_top1_agreement: float
    """Share of texts with the same best label, or of queries with the same best document."""
    max_score_difference: float


class EncoderRecipe(AnyRecipe, frozen=True):
    """One checked recipe."""

    export: EncoderExport
    tolerance: EmbeddingTolerance | ScoreTolerance


def load_any_recipe(name_or_path: str) -> Recipe | EncoderRecipe:
    """A shipped recipe by name, or any TOML file, of whatever task. Raises ExportError."""
    document = read_document(name_or_path)
    with naming(document.path):
        if _task(document.tables) == TASKS[0]:
            return load_recipe(name_or_path)
        return _parse(document)


def _task(tables: dict[str, Any]) -> str:
    export = tables.get("export")
    task = export.get("task", TASKS[0]) if isinstance(export, dict) else TASKS[0]
    if task not in TASKS:
        raise ExportError(
            f"[export] task is {task!r}, which is none{suggest(str(task), TASKS)} Known are: "
            f"{', '.join(TASKS)}."
        )
    return str(task)


def _parse(document: Document) -> EncoderRecipe:
    tables = document.tables
    check_tables(tables)
    if "context_length" in tables["export"]:
        raise ExportError(
            "[export] context_length is a decoder's: an encoder's longest text is max_tokens."
        )
    export = convert_table(tables["export"], EncoderExport, "export")
    embeds = export.task == "feature-extraction"
    kind: type[EmbeddingTolerance | ScoreTolerance]
    kind = EmbeddingTolerance if embeds else ScoreTolerance
    recipe = EncoderRecipe(
        name=document.path.stem,
        model=parse_model(tables["model"]),
        source=parse_source(tables["source"], document.path.parent),
        export=export,
        precision=convert_table(tables["precision"], Precision, "precision"),
        tolerance=convert_table(tables["tolerance"], kind, "tolerance"),
    )
    _check(recipe, tables["precision"])
    return recipe


def _check(recipe: EncoderRecipe, precision: dict[str, Any]) -> None:
    export, source, tolerance = recipe.export, recipe.source, recipe.tolerance
    for key in ("lm_head", "mixed_layers"):
        if key in precision:
            raise ExportError(f"[precision] {key} is a decoder's: an encoder has no output to it.")
    if isinstance(source, GgufSource) or (isinstance(source, PackageSource) and source.file):
        raise ExportError(
            "[source] an encoder is exported from a hub or a folder of safetensors: a GGUF file "
            "does not say how to pool."
        )
    if export.max_tokens is not None and export.max_tokens < 2:
        raise ExportError("[export] max_tokens must be at least 2.")
    pools = export.pooling is not None or export.normalize is not None
    if pools and export.task != "feature-extraction":
        raise ExportError(f"[export] pooling and normalize are embeddings', not {export.task}'s.")
    if export.pooling is not None and export.pooling not in POOLING:
        raise ExportError(
            f"[export] pooling is {export.pooling!r}{suggest(export.pooling, POOLING)} Known are: "
            f"{', '.join(POOLING)}."
        )
    _check_tolerance(tolerance)


def _check_tolerance(tolerance: EmbeddingTolerance | ScoreTolerance) -> None:
    if isinstance(tolerance, EmbeddingTolerance):
        for key in ("min_mean_cosine", "min_cosine"):
            if not -1 <= getattr(tolerance, key) <= 1:
                raise ExportError(f"[tolerance] {key} is a cosine: -1.0 to 1.0.")
    elif not 0 <= tolerance.min_top1_agreement <= 1:
        raise ExportError("[tolerance] min_top1_agreement is a share: 0.0 to 1.0.")
    elif not tolerance.max_score_difference >= 0:
        raise ExportError("[tolerance] max_score_difference must not be negative.")
