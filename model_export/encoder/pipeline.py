"""An encoder's export, step by step: fetch > convert > fuse > quantize > verify > pack.

As pipeline.py does it for a decoder: the fp32 artefact exists to be verified against, the quantised
one is published once every gate has passed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from handlers.config import Settings
from model_export.build import build, use_threads
from model_export.encoder.pack import write_manifest
from model_export.encoder.source import EncoderSource, fetch_encoder
from model_export.encoder.verify import make_reference
from model_export.encoder.verify.exchange import PROGRAM, EncoderGates
from model_export.pack import building, publish, write_texts
from model_export.recipe import EncoderRecipe
from model_export.reporting import Report
from model_export.verify.launch import verify


def export_encoder(recipe: EncoderRecipe, out: Path, report: Report) -> None:
    """Writes the artefact of `recipe` to `out`, or raises ExportError and leaves `out` alone."""
    with building(out) as scratch:
        threads = Settings.from_environ().threads
        use_threads(threads)
        source = fetch_encoder(recipe, report)
        report("reference: transformers' ids and answers on the corpus")
        reference = make_reference(source, recipe.export.task)
        exact, quantised = _build(recipe, source, scratch, report)
        task = EncoderGates(reference, exact, quantised, recipe.tolerance, threads)
        figures = verify(task, scratch / "exchange", report, PROGRAM).figures
        report(f"pack {out}")
        write_manifest(quantised, recipe, source, recipe.precision.describe(), figures)
        publish(quantised, out)


def _build(
    recipe: EncoderRecipe, source: EncoderSource, scratch: Path, report: Report
) -> tuple[Path, Path]:
    from model_export.encoder.convert import convert
    from model_export.fuse import ENCODER_PASSES, fuse

    def finish(directory: Path, precision: str) -> None:
        write_texts(directory, recipe, source.loaded)
        write_manifest(directory, recipe, source, precision, verification={})

    traced = partial(convert, source.loaded.model, source.head)
    return build(
        traced, partial(fuse, passes=ENCODER_PASSES), finish, recipe.precision, scratch, report
    )
