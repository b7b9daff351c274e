"""Describes an export and what it would make, from the model's configuration alone: `--dry-run`.

It reads one small file where the source is on a hub, and no weights. outline.py measures the model;
footprint.py, cost.py and duration.py do the arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from handlers.config import Settings
from handlers.cpus import LAMBDA_MB_PER_CPU
from model_export.fetch.hub import download
from model_export.fetch.load import UNREADABLE, reason_of
from model_export.fetch.locate import packaged_path
from model_export.fetch.plain_weights import CONFIG, SMALL_FILES, refuse_packed
from model_export.recipe import (
    DecoderRecipe,
    DraftTable,
    EncoderRecipe,
    FolderSource,
    GgufSource,
    HubSource,
    Precision,
    Source,
)
from model_export.recipe_loader import load_sibling_recipe
from model_export.reporting import ExportError, Report
from model_export.sizing.cost import Cost, cost_of
from model_export.sizing.draft import (
    DraftSize,
    measuring_seconds,
    size_of_own_layers,
    size_of_sibling,
)
from model_export.sizing.duration import measured_speed, seconds_of
from model_export.sizing.footprint import (
    EXPECTED,
    Machine,
    Outline,
    Weights,
    cache_bytes,
    machine_for,
    run_time_bytes,
    token_bytes,
    weights_of,
)
from model_export.sizing.limits import MB, check_budget, gigabytes
from model_export.sizing.outline import outline_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig


@dataclass(frozen=True, slots=True)
class Prediction:
    """The figures of an export that are known before it is made."""

    table: str
    """For people."""
    cost: Cost


def dry_run(
    recipe: DecoderRecipe | EncoderRecipe, settings: Settings, report: Report
) -> Prediction:
    """Fetches the configuration and predicts the export. Raises ExportError."""
    outline = outline_of(fetch_config(recipe.source, report), recipe)
    check_budget(recipe.precision, outline)
    speed, hashed = measured_speed(settings.threads), hashed_bytes(recipe.source)
    seconds = seconds_of(outline, recipe.precision, hashed, speed, settings.threads)
    cost, draft = cost_of(outline, recipe.precision), None
    if isinstance(recipe, DecoderRecipe) and recipe.draft is not None:
        draft, exported = _draft(outline, recipe, settings, speed, report)
        cost = draft.added_to(cost)
        seconds += exported + measuring_seconds(outline, draft, speed)
    return Prediction(describe(outline, recipe, settings, seconds, draft), cost)


def _draft(
    outline: Outline, recipe: DecoderRecipe, settings: Settings, speed: float, report: Report
) -> tuple[DraftSize, float]:
    """Returns the draft model's sizes, and the seconds of its own export. Raises ExportError."""
    wanted = cast("DraftTable", recipe.draft)
    if wanted.recipe is None:
        return size_of_own_layers(outline, recipe.precision, wanted.layers or 0), 0.0
    try:
        sibling = load_sibling_recipe(wanted.recipe, recipe.export.context_length)
        other = outline_of(fetch_config(sibling.source, report), sibling)
        check_budget(sibling.precision, other)
    except ExportError as error:
        raise ExportError(f"[draft] recipe {wanted.recipe}: {error}") from error
    hashed, threads = hashed_bytes(sibling.source), settings.threads
    size = size_of_sibling(outline, recipe.precision, sibling, other, slots_of(recipe, settings)[1])
    return size, seconds_of(other, sibling.precision, hashed, speed, threads)


def describe(
    outline: Outline,
    recipe: DecoderRecipe | EncoderRecipe,
    settings: Settings,
    seconds: float,
    draft: DraftSize | None = None,
) -> str:
    """Returns the table. `settings` say how many slots of how many tokens serve.

    `seconds`: how long the export takes, that of the draft model included.
    """
    weights = weights_of(outline, recipe.precision)
    slots, tokens = slots_of(recipe, settings)
    slot = cache_bytes(outline, recipe.precision, tokens)
    memory = run_time_bytes(outline, weights, slots * slot)
    cost = cost_of(outline, recipe.precision)
    if draft is not None:
        memory, cost = memory + draft.memory(slots), draft.added_to(cost)
    rows = [
        ("model", f"{recipe.model.id}, {outline.architecture}, {recipe.model.licence}"),
        ("parameters", f"{outline.parameters / MB:,.0f} M"),
        *_weight_rows(outline, weights, recipe.precision),
        *(_cache_rows(token_bytes(outline, recipe.precision), slot) if slots else ()),
        *(_draft_rows(draft) if draft else ()),
        ("memory at run time", _megabytes(memory) + _slots_in_words(slots, tokens)),
        *_machine_rows(machine_for(outline, weights, memory)),
        ("the export itself", _cost_in_words(cost, seconds)),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def slots_of(recipe: DecoderRecipe | EncoderRecipe, settings: Settings) -> tuple[int, int]:
    """Returns how many slots there are, and the tokens of each. An encoder has none."""
    if isinstance(recipe, EncoderRecipe):
        return 0, 0
    return settings.slots, min(settings.context_length, recipe.export.context_length)


def _weight_rows(outline: Outline, weights: Weights, precision: Precision) -> list[tuple[str, str]]:
    exact = weights_of(outline, Precision(weights="fp32")).total
    more = ", which mixed_layers makes larger" if precision.mixed_layers else ""
    total, linears = _megabytes(weights.total), f"{_megabytes(weights.linears)} {precision.weights}"
    heads = f"{_megabytes(weights.heads)} {precision.head}"
    if precision.weights == "auto":
        first = precision.choices[0]
        least, most = (weights_of(outline, precision.all_in(each)) for each in (first, "int8"))
        if precision.is_searched:
            total = f"about {total}, {_megabytes(least.total)} to {_megabytes(most.total)}"
        else:
            total, most = f"{_megabytes(least.total)}, up to {total}", weights
        linears = _chosen_in_words(first, least.linears, most.linears)
        if not precision.lm_head:
            heads = _chosen_in_words(first, least.heads, most.heads)
    return [
        ("precision", _precision_in_words(precision)),
        ("weights on disk", f"{total}{more} (fp32: {_megabytes(exact)})"),
        ("  linear layers", linears),
        ("  embedding, head", heads),
        ("  norms, tables", f"{_megabytes(weights.plain)} fp32"),
    ]


def _precision_in_words(precision: Precision) -> str:
    words = precision.describe()
    if not precision.is_searched:
        return words
    return f"{words}, as many bits as [tolerance] takes; where it says about, as {EXPECTED}"


def _chosen_in_words(first: str, least: int, most: int) -> str:
    return f"{_megabytes(least)} {first}, up to {_megabytes(most)} with int8"


def _cache_rows(token: int, slot: int) -> list[tuple[str, str]]:
    return [("cache", f"{token / 1000:,.0f} kB a token, {_megabytes(slot)} a slot")]


def _draft_rows(draft: DraftSize) -> list[tuple[str, str]]:
    weights, slot = _megabytes(draft.weights), _megabytes(draft.slot)
    sizes = f"{weights} more on disk, {slot} a slot, a step takes {draft.step_cost:.2f} of a token"
    return [("draft model", f"{draft.name}: {sizes}")]


def _slots_in_words(slots: int, tokens: int) -> str:
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


def _cost_in_words(cost: Cost, seconds: float) -> str:
    duration = f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"
    memory, disk = gigabytes(cost.memory), gigabytes(cost.scratch)
    return f"{duration} here and {memory} of memory; {disk} of disk beside the artefact until then"


def hashed_bytes(source: Source) -> int:
    """Counts what an export digests before it begins: all of a folder or of a GGUF file."""
    if isinstance(source, GgufSource):
        return source.gguf.stat().st_size
    if isinstance(source, FolderSource):
        return sum(path.stat().st_size for path in source.path.iterdir() if path.is_file())
    return 0


def _megabytes(count: int) -> str:
    return f"{count / MB:,.0f} MB"


def fetch_config(source: Source, report: Report | None = None) -> PretrainedConfig:
    """Returns a source's configuration. Raises ExportError where transformers cannot read it."""
    from transformers import AutoConfig

    path = _config_path(source, report)
    if path.is_dir():
        refuse_packed(path, source.hub if isinstance(source, HubSource) else str(path))
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if path.is_file():
        options["gguf_file"] = path.name
        directory = path.parent
    elif (path / CONFIG).is_file():
        directory = path
    else:
        raise ExportError(
            f"{path} does not exist, or is a folder without {CONFIG}: name in [source] a folder as "
            f"save_pretrained writes it."
        )
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(directory, **options)
    except UNREADABLE as error:
        raise ExportError(
            f"transformers cannot read the model of {path}: {reason_of(error)}"
        ) from error
    return config


def _config_path(source: Source, report: Report | None) -> Path:
    """Returns a folder with a config.json, or a GGUF file."""
    if isinstance(source, HubSource):
        return download(source.hub, source.revision, report, wanted=SMALL_FILES)
    if isinstance(source, FolderSource):
        return source.path
    if isinstance(source, GgufSource):
        return source.gguf
    return packaged_path(source)
