"""An encoder's export, step by step: fetch > convert > fuse > quantize > verify > pack.

As pipeline.py does it for a decoder: the fp32 artefact exists to be verified against, the quantised
one is published once every gate has passed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from handlers.config import Settings
from model_export.encoder.pack import write_manifest
from model_export.encoder.recipe import EncoderRecipe
from model_export.encoder.source import EncoderSource, fetch_encoder
from model_export.encoder.verify import make_reference
from model_export.encoder.verify.exchange import PROGRAM, EncoderTask
from model_export.pack import building, publish, write_texts
from model_export.pipeline import EXACT, use_threads
from model_export.progress import Report
from model_export.verify.launch import verify

if TYPE_CHECKING:
    import onnx_ir as ir


def export_encoder(recipe: EncoderRecipe, out: Path, report: Report) -> None:
    """Writes the artefact of `recipe` to `out`, or raises ExportError and leaves `out` alone."""
    with building(out) as scratch:
        threads = Settings.from_environ().threads
        use_threads(threads)
        source = fetch_encoder(recipe, report)
        report("reference: transformers' ids and answers on the corpus")
        reference = make_reference(source, recipe.export.task)
        exact, quantised = _build(recipe, source, scratch, report)
        task = EncoderTask(reference, exact, quantised, recipe.tolerance, threads)
        figures = verify(task, scratch / "exchange", report, PROGRAM).figures
        report(f"pack {out}")
        write_manifest(quantised, recipe, source, recipe.precision.describe(), figures)
        publish(quantised, out)


def _build(
    recipe: EncoderRecipe, source: EncoderSource, scratch: Path, report: Report
) -> tuple[Path, Path]:
    """The fp32 and the quantised artefact, complete but for their verification."""
    from model_export.encoder.convert import convert
    from model_export.encoder.fuse import fuse
    from model_export.quantize import quantize

    report("convert to ONNX")
    graph = convert(source.loaded.model, source.head)
    report("fuse")
    graph = fuse(graph)
    exact = _write(graph, scratch / "exact", recipe, source, EXACT)
    precision = recipe.precision.describe()
    report(f"quantize to {precision}")
    graph = quantize(graph, recipe.precision)
    return exact, _write(graph, scratch / "artefact", recipe, source, precision)


def _write(
    graph: ir.Model, directory: Path, recipe: EncoderRecipe, source: EncoderSource, precision: str
) -> Path:
    from model_export.save import save

    save(graph, directory)
    write_texts(directory, recipe, source.loaded)
    write_manifest(directory, recipe, source, precision, verification={})
    return directory
