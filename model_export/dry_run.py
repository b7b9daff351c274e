"""What an export would make, from the model's configuration alone, as a table for people.

`python -m model_export --dry-run RECIPE`. sizing.py does the arithmetic.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.config import LAMBDA_MB_PER_CPU, Settings
from model_export.fetch.config import fetch_config
from model_export.outline import outline_of
from model_export.progress import Report
from model_export.recipe import DecoderRecipe, EncoderRecipe, Precision
from model_export.sizing import (
    Machine,
    Outline,
    Weights,
    cache_bytes,
    machine_for,
    run_time_bytes,
    token_bytes,
    weights_of,
)

if TYPE_CHECKING:
    from transformers import PretrainedConfig

MB = 1_000_000


def dry_run(recipe: DecoderRecipe | EncoderRecipe, settings: Settings, report: Report) -> str:
    """The table, once the configuration is here. Raises ExportError."""
    return describe(fetch_config(recipe.source, report), recipe, settings)


def describe(
    config: PretrainedConfig, recipe: DecoderRecipe | EncoderRecipe, settings: Settings
) -> str:
    """The table. `settings` say how many slots of how many tokens serve. Raises ExportError."""
    outline = outline_of(config, recipe)
    weights = weights_of(outline, recipe.precision)
    slots, tokens = slots_of(recipe, settings)
    slot = cache_bytes(outline, recipe.precision, tokens)
    memory = run_time_bytes(outline, weights, slots * slot)
    rows = [
        ("model", f"{recipe.model.id}, {outline.architecture}, {recipe.model.licence}"),
        ("parameters", f"{outline.parameters / MB:,.0f} M"),
        *_weight_rows(outline, weights, recipe.precision),
        *(_cache_rows(token_bytes(outline, recipe.precision), slot) if slots else ()),
        ("memory at run time", _megabytes(memory) + _full(slots, tokens)),
        *_machine_rows(machine_for(outline, weights, memory)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def slots_of(recipe: DecoderRecipe | EncoderRecipe, settings: Settings) -> tuple[int, int]:
    """How many slots, and the tokens of each. An encoder has none."""
    if isinstance(recipe, EncoderRecipe):
        return 0, 0
    return settings.slots, min(settings.context_length, recipe.export.context_length)


def _weight_rows(outline: Outline, weights: Weights, precision: Precision) -> list[tuple[str, str]]:
    exact = weights_of(outline, Precision(weights="fp32")).total
    more = ", which mixed_layers makes larger" if precision.mixed_layers else ""
    return [
        ("weights on disk", f"{_megabytes(weights.total)}{more} (fp32: {_megabytes(exact)})"),
        ("  linear layers", f"{_megabytes(weights.linears)} {precision.weights}"),
        ("  embedding, head", f"{_megabytes(weights.heads)} {precision.head}"),
        ("  norms, tables", f"{_megabytes(weights.plain)} fp32"),
    ]


def _cache_rows(token: int, slot: int) -> list[tuple[str, str]]:
    return [("cache", f"{token / 1000:,.0f} kB a token, {_megabytes(slot)} a slot")]


def _full(slots: int, tokens: int) -> str:
    if not slots:
        return ""
    return (
        f" with {slots} full slots of {tokens:,} tokens (KINDLING_SLOTS, KINDLING_CONTEXT_LENGTH)"
    )


def _machine_rows(machine: Machine) -> list[tuple[str, str]]:
    if machine.lambda_mb is None:
        lambda_row = "does not fit: 10,240 MB is its largest"
    else:
        cpus = machine.lambda_mb / LAMBDA_MB_PER_CPU
        lambda_row = f"{machine.lambda_mb:,} MB, which is {cpus:.1f} vCPU"
    if machine.cloud_run_cpus is None:
        cloud_run_row = "does not fit: 8 CPU and 32 GiB is its largest"
    else:
        cloud_run_row = f"{machine.cloud_run_cpus} CPU, {machine.cloud_run_mib:,} MiB"
    return [("AWS Lambda", lambda_row), ("Cloud Run", cloud_run_row)]


def _megabytes(count: int) -> str:
    return f"{count / MB:,.0f} MB"
