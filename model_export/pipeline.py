"""The steps of an export: fetch > reference > convert > quantize > verify > pack.

No step holds the model's weights: they are read from the source's files when they are asked for,
a layer at a time by the reference, a part of a matrix at a time by the quantiser. Two artefacts are
built in a scratch directory: an fp32 one, which exists to be verified against, and the quantised
one, which is published once it has passed every gate. A draft model that is another model is
exported there first, in the same way. What decoders and encoders do in different ways is a
Strategy: decoder/export.py and encoder/export.py.
"""

from __future__ import annotations

import os
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import msgspec

from handlers.artifact.manifest import DraftInfo
from handlers.config import Settings
from model_export.decoder.export import DecoderStrategy
from model_export.draft.step_cost import step_cost_in
from model_export.encoder.export import EncoderStrategy
from model_export.manifest import ManifestFields, describe_files, save_manifest
from model_export.package import complete, publish
from model_export.recipe import DecoderRecipe, EncoderRecipe, Precision
from model_export.recipe_loader import load_sibling_recipe
from model_export.reporting import ExportError, Report
from model_export.scratch import check_destination, fingerprint, scratch_dir
from model_export.verify.exchange import (
    DecoderGates,
    EncoderGates,
    MeasuredDraft,
    VerifyRequest,
    read_gates,
    write,
)
from model_export.verify.launch import verify

if TYPE_CHECKING:
    import onnx_ir as ir

    from handlers.artifact.manifest import PlanInfo
    from model_export.fetch.load import LoadedModel
    from model_export.plan_search import PlanSearch

GatesT = TypeVar("GatesT", DecoderGates, EncoderGates)
REFERENCE = "reference.msgpack"


class Strategy(Protocol[GatesT]):
    """The steps that decoders and encoders do in different ways, over a loaded model."""

    @property
    def loaded(self) -> LoadedModel:
        """The model of transformers, its tokenizer and what else its source has."""

    def reference(self, directory: Path, report: Report) -> GatesT:
        """Computes with transformers what the export has to reproduce.

        What is large goes to files in `directory`.
        """

    def calibrate(self, directory: Path) -> None:
        """Tells the weights, before `convert`, what `reference` put in `directory` for them."""

    def convert(self) -> ir.Model:
        """Traces the model into a graph in fp32, and runs the passes that make it fast."""

    def write_exact(self, graph: ir.Model, directory: Path, gates: GatesT, threads: int) -> None:
        """Writes the graph that is compared with transformers in fp32."""

    def manifest_fields(self, report: Report) -> ManifestFields:
        """Returns what this kind of model says of itself in its manifest."""


def export(recipe: DecoderRecipe | EncoderRecipe, out: Path, report: Report) -> None:
    """Writes the artefact of `recipe` to `out`, or raises ExportError and leaves `out` alone."""
    _export(_load(recipe, out, report), recipe, out, report)


def _export(
    strategy: Strategy[Any], recipe: DecoderRecipe | EncoderRecipe, out: Path, report: Report
) -> None:
    with _scratch(strategy, recipe, out, report) as scratch:
        sibling = _export_sibling(strategy.loaded, recipe, scratch, report)
        source = _converted(strategy, scratch, report)
        fp32, quantised = scratch / "fp32", scratch / "artefact"
        strategy.write_exact(source.graph, fp32, source.gates, source.threads)
        precision, plan = _write_quantised(source, recipe, quantised, report)
        draft = _add_draft(strategy, recipe, sibling, precision, quantised, report)
        fields = replace(strategy.manifest_fields(report), draft=draft)
        manifest = complete(quantised, recipe, strategy.loaded, fields, precision, describe_files)
        cost = step_cost_in(quantised)
        request = VerifyRequest(source.gates, fp32, quantised, source.threads, cost)
        outcome = verify(request, scratch / "exchange", report)
        report(f"pack {out}")
        verified = msgspec.structs.replace(
            manifest,
            files=describe_files(quantised, known=manifest.files),
            created=int(time.time()),
            verification=outcome.figures,
            prefix=outcome.prefix,
            plan=plan,
            draft=_measured(draft, outcome.draft),
        )
        save_manifest(quantised, verified)
        publish(quantised, out)


def measure_plans(recipe: DecoderRecipe, out: Path, report: Report) -> str:
    """Measures plans from small to large, and draft models: two tables. Raises ExportError.

    It works beside `out`, as an export does, and leaves nothing there.
    """
    searched = msgspec.structs.replace(recipe, precision=recipe.precision.searched())
    out = out.with_name(f"{out.name}-plan")
    strategy = _load(searched, out, report)
    with _scratch(strategy, searched, out, report) as scratch:
        from model_export.draft.plan import draft_table
        from model_export.plan_search import SHOWN, table

        source = _converted(strategy, scratch, report)
        search = _search(source, searched.precision, report)
        plans = table([search.measure(count) for count in search.frontier.counts(SHOWN)])
        texts = cast("DecoderGates", source.gates).reference.choosing
        drafts = draft_table(strategy.loaded, searched, texts, report)
        return f"{plans}\n\n{drafts}" if drafts else plans


@dataclass(frozen=True, slots=True)
class _Converted:
    """A model that is traced and fused, what it has to reproduce, and where the export works."""

    strategy: Strategy[Any]
    gates: DecoderGates | EncoderGates
    graph: ir.Model
    scratch: Path
    threads: int


def _scratch(
    strategy: Strategy[Any], recipe: DecoderRecipe | EncoderRecipe, out: Path, report: Report
) -> AbstractContextManager[Path]:
    """Makes or finds the scratch directory of an export to `out`."""
    return scratch_dir(out, fingerprint(recipe, strategy.loaded.revision), report)


def _converted(strategy: Strategy[Any], scratch: Path, report: Report) -> _Converted:
    """Takes the steps up to the fused graph."""
    threads = Settings.from_environ().threads
    gates = _reference(strategy, scratch, report)
    strategy.calibrate(scratch)
    report("convert to ONNX")
    return _Converted(strategy, gates, strategy.convert(), scratch, threads)


def _write_quantised(
    source: _Converted, recipe: DecoderRecipe | EncoderRecipe, directory: Path, report: Report
) -> tuple[str, PlanInfo | None]:
    """Writes the quantised graph. Returns its precision in words, and the plan if it was chosen."""
    # After torch, which is what a person has to install first where all is missing.
    from model_export.quantize import quantize
    from model_export.save import save

    precision, threads = recipe.precision, source.threads
    journal = source.scratch / "weights.journal"
    if precision.weights == "auto" and isinstance(recipe, DecoderRecipe):
        search = _search(source, precision, report)
        chosen = search.chosen(recipe.tolerance)
        words, plan = precision.describe(search.describe(chosen)), search.info(chosen)
        report(f"quantize to {words}")
        if search.move_chosen(chosen, directory):
            return words, plan
        graph = search.quantised(chosen)
    else:
        words, plan = precision.describe(), None
        report(f"quantize to {words}")
        graph = quantize(source.graph, precision)
    save(graph, directory, threads=threads, report=report, journal=journal)
    return words, plan


def _export_sibling(
    model: LoadedModel, recipe: DecoderRecipe | EncoderRecipe, scratch: Path, report: Report
) -> Path | None:
    """Exports the draft model that the recipe names, by its own recipe and with its own gates.

    Returns its artefact, None where the recipe names none. The model's own weights are not read
    meanwhile. Raises ExportError, also where the model cannot take drafts.
    """
    if not isinstance(recipe, DecoderRecipe) or recipe.draft is None:
        return None
    from model_export.draft.support import check_draft

    draft = recipe.draft

    check_draft(model.model, draft)
    if draft.recipe is None:
        return None
    try:
        sibling = load_sibling_recipe(draft.recipe, recipe.export.context_length)
        return _exported_once(sibling, model, scratch, lambda line: report(f"draft: {line}"))
    except ExportError as error:
        raise ExportError(f"[draft] recipe {draft.recipe}: {error}") from error


def _exported_once(
    recipe: DecoderRecipe, model: LoadedModel, scratch: Path, report: Report
) -> Path:
    """Exports a draft model, unless an export that was interrupted has finished it."""
    from model_export.draft.same_tokens import check_same_tokens
    from model_export.draft.support import check_sibling

    out, done = scratch / "draft", scratch / "draft.done"
    strategy = _load(recipe, out, report)
    check_sibling(strategy.loaded.model, recipe.export.context_length)
    check_same_tokens(model, strategy.loaded)
    mark = fingerprint(recipe, strategy.loaded.revision)
    if not (done.is_file() and done.read_text(encoding="utf-8") == mark):
        _export(strategy, recipe, out, report)
        done.write_text(mark, encoding="utf-8")
    return out


def _add_draft(
    strategy: Strategy[Any],
    recipe: DecoderRecipe | EncoderRecipe,
    sibling: Path | None,
    precision: str,
    directory: Path,
    report: Report,
) -> DraftInfo | None:
    """Adds the draft model, not measured yet, to an artefact that has the model's own graph."""
    draft = recipe.draft if isinstance(recipe, DecoderRecipe) else None
    if sibling is not None:
        from model_export.draft.sibling import add_sibling

        return add_sibling(sibling, directory)
    if draft is None or draft.layers is None:
        return None
    from model_export.draft.own_layers import write_own_layers

    model, layers = strategy.loaded.model, draft.layers
    report(f"draft: the model's first layers, {layers} of them")
    write_own_layers(model, layers, strategy.convert, recipe.precision, directory)
    return DraftInfo(recipe.model.id, layers, precision, acceptance=0.0, measured={})


def _measured(draft: DraftInfo | None, found: MeasuredDraft | None) -> DraftInfo | None:
    if draft is None or found is None:
        return draft
    return msgspec.structs.replace(draft, acceptance=found.acceptance, measured=found.measured)


def _search(source: _Converted, precision: Precision, report: Report) -> PlanSearch:
    from model_export.plan_search import PlanSearch

    reference = cast("DecoderGates", source.gates).reference
    directory = source.scratch / "plans"
    directory.mkdir(exist_ok=True)
    report("plan: order the matrices by what more bits keep")
    return PlanSearch(source.graph, precision, reference, directory, source.threads, report)


def _prepare_torch(threads: int) -> None:
    """Sets the threads of torch, which counts the host's CPUs, not those of this process.

    Their number must not change what is measured of the layers' inputs. MKL cuts a product with
    few outputs along its inputs, by the number of threads, unless it is told otherwise before its
    first one: https://www.intel.com/content/www/us/en/docs/onemkl/developer-guide-linux/2024-2/
    obtaining-numerically-reproducible-results.html
    """
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")
    import torch

    torch.set_num_threads(threads)


def _load(recipe: DecoderRecipe | EncoderRecipe, out: Path, report: Report) -> Strategy[Any]:
    """Loads the source, and refuses a model that this machine cannot hold."""
    from model_export.sizing.check import check_before_download, check_loaded

    check_destination(out)
    _prepare_torch(Settings.from_environ().threads)
    if isinstance(recipe, DecoderRecipe) and recipe.precision.is_calibrated:
        from model_export.quantize.importance_search import load_search

        load_search()  # a failure now saves the minutes of the reference
    check_before_download(recipe, out, report)
    strategy = (
        EncoderStrategy.load(recipe, report)
        if isinstance(recipe, EncoderRecipe)
        else DecoderStrategy.load(recipe, report)
    )
    check_loaded(strategy.loaded.model, recipe, out, report)
    return strategy


def _reference(strategy: Strategy[GatesT], scratch: Path, report: Report) -> GatesT:
    """Computes the reference, or reads what an export that was interrupted has computed."""
    file = scratch / REFERENCE
    if file.is_file():
        return read_gates(file)  # type: ignore[return-value]
    gates = strategy.reference(scratch, report)
    write(file.with_suffix(".part"), gates)
    file.with_suffix(".part").rename(file)
    return gates
