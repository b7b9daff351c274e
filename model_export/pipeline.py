"""The steps of an export: fetch > reference > convert > fuse > quantize > verify > pack.

Two artefacts are built in a scratch directory: the fp32 one, which exists to be verified against,
and the quantised one, which is published once it has passed every gate. What decoders and encoders
do in different ways is a Strategy: decoder/export.py and encoder/export.py.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec

from handlers.config import Settings
from model_export.decoder.export import DecoderStrategy
from model_export.encoder.export import EncoderStrategy
from model_export.manifest import (
    ManifestFields,
    describe_files,
    make_manifest,
    measure_files,
    save_manifest,
)
from model_export.package import publish, scratch_dir, write_sidecars
from model_export.recipe import DecoderRecipe, EncoderRecipe
from model_export.reporting import Report
from model_export.verify.exchange import DecoderGates, EncoderGates, VerifyRequest
from model_export.verify.launch import verify

if TYPE_CHECKING:
    import onnx_ir as ir

    from handlers.artifact.manifest import FileInfo, Manifest
    from model_export.fetch.load import LoadedModel
    from model_export.fuse import Pass

ReferenceT = TypeVar("ReferenceT")


class Strategy(Protocol[ReferenceT]):
    """The steps that decoders and encoders do in different ways, over a loaded model."""

    @property
    def loaded(self) -> LoadedModel:
        """The model of transformers, its tokenizer and what else its source has."""

    def reference(self, report: Report) -> ReferenceT:
        """Returns transformers' ids and answers, which the export has to reproduce."""

    def convert(self) -> ir.Model:
        """Traces the model into an fp32 graph, plain and slow."""

    def passes(self) -> Sequence[Pass]:
        """Returns the passes that make the traced graph fast."""

    def gates(self, reference: ReferenceT) -> DecoderGates | EncoderGates:
        """Returns what the verifying process has to check."""

    def manifest_fields(self) -> ManifestFields:
        """Returns what this kind of model says of itself in its manifest."""


def export(recipe: DecoderRecipe | EncoderRecipe, out: Path, report: Report) -> None:
    """Writes the artefact of `recipe` to `out`, or raises ExportError and leaves `out` alone."""
    with scratch_dir(out) as scratch:
        threads = Settings.from_environ().threads
        _set_torch_threads(threads)
        # After torch, which is what a person has to install first where all is missing.
        from model_export.fuse import fuse
        from model_export.quantize import quantize

        strategy = _load(recipe, report)
        reference = strategy.reference(report)
        report("convert to ONNX")
        graph = strategy.convert()
        report("fuse")
        fuse(graph, strategy.passes())
        fp32, quantised = scratch / "fp32", scratch / "artefact"
        _write_artefact(graph, fp32, recipe, strategy, "fp32", measure_files)
        precision = recipe.precision.describe()
        report(f"quantize to {precision}")
        quantize(graph, recipe.precision)
        manifest = _write_artefact(graph, quantised, recipe, strategy, precision, describe_files)
        request = VerifyRequest(strategy.gates(reference), fp32, quantised, threads)
        outcome = verify(request, scratch / "exchange", report)
        report(f"pack {out}")
        verified = msgspec.structs.replace(
            manifest,
            files=describe_files(quantised, known=manifest.files),
            created=int(time.time()),
            verification=outcome.figures,
            prefix=outcome.prefix,
        )
        save_manifest(quantised, verified)
        publish(quantised, out)


def _set_torch_threads(count: int) -> None:
    """Sets what torch cannot see: it counts the host's CPUs, not those of this process."""
    import torch

    torch.set_num_threads(count)


def _load(recipe: DecoderRecipe | EncoderRecipe, report: Report) -> Strategy[Any]:
    if isinstance(recipe, EncoderRecipe):
        return EncoderStrategy.load(recipe, report)
    return DecoderStrategy.load(recipe, report)


def _write_artefact(
    graph: ir.Model,
    directory: Path,
    recipe: DecoderRecipe | EncoderRecipe,
    strategy: Strategy[Any],
    precision: str,
    describe: Callable[[Path], dict[str, FileInfo]],
) -> Manifest:
    """Writes an artefact that is complete but for its verification. Returns its manifest."""
    from model_export.save import save

    loaded = strategy.loaded
    save(graph, directory)
    write_sidecars(directory, recipe, loaded)
    files = describe(directory)
    manifest = make_manifest(recipe, loaded, strategy.manifest_fields(), precision, files)
    save_manifest(directory, manifest)
    return manifest
