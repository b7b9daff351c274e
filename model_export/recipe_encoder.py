"""Parses the recipe of an encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from model_export.recipe import (
    POOLING_MODES,
    EmbeddingTolerance,
    EncoderExport,
    EncoderRecipe,
    GgufSource,
    PackageSource,
    Precision,
    ScoreTolerance,
)
from model_export.recipe_tables import (
    check_tables,
    parse_model,
    parse_source,
    parse_table,
    suggest,
)
from model_export.reporting import ExportError

_DEFAULT = {"weights": "int4"}


def encoder_recipe(tables: dict[str, Any], path: Path) -> EncoderRecipe:
    """Parses the tables of the file at `path`. Raises ExportError."""
    check_tables(tables)
    if "context_length" in tables["export"]:
        raise ExportError(
            "[export] context_length is a decoder's: an encoder's longest text is max_tokens."
        )
    export = parse_table(tables["export"], EncoderExport, "export")
    kind: type[EmbeddingTolerance | ScoreTolerance]
    kind = EmbeddingTolerance if export.task == "feature-extraction" else ScoreTolerance
    recipe = EncoderRecipe(
        name=path.stem,
        model=parse_model(tables["model"]),
        source=parse_source(tables["source"], path.parent),
        export=export,
        precision=parse_table(_DEFAULT | tables["precision"], Precision, "precision"),
        tolerance=parse_table(tables["tolerance"], kind, "tolerance"),
    )
    _check_encoder(recipe, tables["precision"])
    return recipe


def _check_encoder(recipe: EncoderRecipe, precision: dict[str, Any]) -> None:
    """Checks values; `precision` is the table as written, which may name no key of decoders."""
    export, source = recipe.export, recipe.source
    for key in ("lm_head", "mixed_layers"):
        if key in precision:
            raise ExportError(f"[precision] {key} is a decoder's: an encoder has no output to it.")
    if precision.get("weights") == "auto":
        raise ExportError('[precision] weights = "auto" is a decoder\'s: name one of the others.')
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
    if export.pooling is not None and export.pooling not in POOLING_MODES:
        raise ExportError(
            f"[export] pooling is {export.pooling!r}{suggest(export.pooling, POOLING_MODES)} "
            f"Known are: {', '.join(POOLING_MODES)}."
        )
    _check_judge(export)
    _check_encoder_tolerance(recipe.tolerance)


def _check_judge(export: EncoderExport) -> None:
    judge = export.judge
    if judge is None:
        return
    if export.task != "text-ranking":
        raise ExportError(f"[export.judge] is a ranker's, not {export.task}'s.")
    for name, least in (("query", 1), ("document", 1), ("instruction", 0)):
        if not least <= judge.template.count(f"{{{name}}}") <= 1:
            times = "exactly" if least else "at most"
            raise ExportError(f"[export.judge] template must have {{{name}}} {times} once.")
    if ("{instruction}" in judge.template) != (judge.instruction is not None):
        raise ExportError(
            "[export.judge] instruction is what {instruction} in the template stands for where a "
            "request names none: write both, or neither."
        )


def _check_encoder_tolerance(tolerance: EmbeddingTolerance | ScoreTolerance) -> None:
    if isinstance(tolerance, EmbeddingTolerance):
        for key in ("min_mean_cosine", "min_cosine"):
            if not -1 <= getattr(tolerance, key) <= 1:
                raise ExportError(f"[tolerance] {key} is a cosine: -1.0 to 1.0.")
    elif not 0 <= tolerance.min_top1_agreement <= 1:
        raise ExportError("[tolerance] min_top1_agreement is a share: 0.0 to 1.0.")
    elif not tolerance.max_score_difference >= 0:
        raise ExportError("[tolerance] max_score_difference must not be negative.")
