"""The export, step by step: fetch > convert > fuse > quantize > verify > bake > pack.

Two artefacts are built in a scratch directory: the fp32 one, which exists to be verified
against, and the quantised one, which is published once every gate has passed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from handlers.config import Settings
from model_export.build import build, use_threads
from model_export.fetch.load import LoadedModel, fetch
from model_export.pack import building, publish, write_manifest, write_texts
from model_export.recipe import DecoderRecipe
from model_export.reporting import Report
from model_export.sampling import not_honoured
from model_export.verify import make_reference, verify
from model_export.verify.exchange import Task


def export(recipe: DecoderRecipe, out: Path, report: Report) -> None:
    """Writes the artefact of `recipe` to `out`, or raises ExportError and leaves `out` alone."""
    with building(out) as scratch:
        threads = Settings.from_environ().threads
        use_threads(threads)
        loaded = fetch(recipe.source, report)
        if left_out := not_honoured(loaded.generation_config):
            report(left_out)
        report("reference: transformers' ids and greedy answers on the corpus")
        reference = make_reference(loaded, recipe.export.context_length)
        exact, quantised = _build(recipe, loaded, scratch, report)
        system_prompt = recipe.prefix.system_prompt if recipe.prefix else None
        task = Task(reference, exact, quantised, recipe.tolerance, threads, system_prompt)
        outcome = verify(task, scratch / "exchange", report)
        report(f"pack {out}")
        precision = recipe.precision.describe()
        write_manifest(quantised, recipe, loaded, precision, outcome.figures, outcome.prefix)
        publish(quantised, out)


def _build(
    recipe: DecoderRecipe, loaded: LoadedModel, scratch: Path, report: Report
) -> tuple[Path, Path]:
    from model_export.decoder.convert import convert
    from model_export.fuse import fuse

    def finish(directory: Path, precision: str) -> None:
        write_texts(directory, recipe, loaded)
        write_manifest(directory, recipe, loaded, precision, verification={})

    traced = partial(convert, loaded.model, recipe.export.context_length)
    return build(traced, fuse, finish, recipe.precision, scratch, report)
