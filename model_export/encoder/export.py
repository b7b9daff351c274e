"""Exports an encoder: the steps of pipeline.Strategy that a decoder does in another way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model_export.encoder.judge_reference import make_judge_reference
from model_export.encoder.reference import make_reference
from model_export.encoder.source import EncoderSource, fetch_encoder
from model_export.fetch.load import LoadedModel
from model_export.manifest import ManifestFields, measure_files
from model_export.package import complete
from model_export.recipe import EncoderRecipe
from model_export.reporting import Report
from model_export.verify.exchange import EncoderGates

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class EncoderStrategy:
    """The export of a model that embeds, classifies or ranks texts."""

    recipe: EncoderRecipe
    source: EncoderSource

    @classmethod
    def load(cls, recipe: EncoderRecipe, report: Report) -> EncoderStrategy:
        """Downloads what is not on disk, then loads model and head in fp32. Raises ExportError."""
        return cls(recipe, fetch_encoder(recipe, report))

    @property
    def loaded(self) -> LoadedModel:
        """The model without its head."""
        return self.source.loaded

    def reference(self, _: Path, report: Report) -> EncoderGates:
        """Encodes the corpus with transformers. The gates ask for its ids, its rows, and drift."""
        report("reference: transformers' ids and answers on the corpus")
        judge = self.source.judge
        if judge is None:
            reference = make_reference(self.source, self.recipe.export.task)
        else:
            reference = make_judge_reference(self.source, judge)
        return EncoderGates(reference=reference, tolerance=self.recipe.tolerance)

    def calibrate(self, _: Path) -> None:
        """Does nothing: an encoder's weights are rounded without a calibration."""

    def convert(self) -> ir.Model:
        """Traces the graph in the encoder's contract, with its head, and makes it fast."""
        from model_export.encoder.convert import convert
        from model_export.fuse import ENCODER_PASSES, fuse

        return fuse(convert(self.loaded.model, self.source.head, self.source.judge), ENCODER_PASSES)

    def write_exact(self, graph: ir.Model, directory: Path, _: EncoderGates, threads: int) -> None:
        """Writes the whole graph in fp32."""
        from model_export.save import save

        save(graph, directory, threads=threads)
        fields = self._fields()
        complete(directory, self.recipe, self.loaded, fields, "fp32", measure_files)

    def manifest_fields(self, _: Report) -> ManifestFields:
        """Returns the longest input, and what only an encoder has."""
        return self._fields()

    def _fields(self) -> ManifestFields:
        info = self.source.info
        return ManifestFields(context_length=info.max_tokens, encoder=info)
