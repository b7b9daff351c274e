"""Exports an encoder: the steps of pipeline.Strategy that a decoder does in another way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_export.encoder.reference import make_reference
from model_export.encoder.source import EncoderSource, fetch_encoder
from model_export.fetch.load import LoadedModel
from model_export.manifest import ManifestFields
from model_export.recipe import EncoderRecipe
from model_export.reporting import Report
from model_export.verify.exchange import EncoderGates, EncoderReference

if TYPE_CHECKING:
    import onnx_ir as ir

    from model_export.fuse import Pass


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

    def reference(self, report: Report) -> EncoderReference:
        """Encodes the corpus with transformers."""
        report("reference: transformers' ids and answers on the corpus")
        return make_reference(self.source, self.recipe.export.task)

    def convert(self) -> ir.Model:
        """Traces the graph in the encoder's contract, with its head."""
        from model_export.encoder.convert import convert

        return convert(self.loaded.model, self.source.head)

    def passes(self) -> Sequence[Pass]:
        """Returns the passes of an encoder's graph."""
        from model_export.fuse import ENCODER_PASSES

        return ENCODER_PASSES

    def gates(self, reference: EncoderReference) -> EncoderGates:
        """Asks for ids, rows of the fp32 graph, and drift."""
        return EncoderGates(reference=reference, tolerance=self.recipe.tolerance)

    def manifest_fields(self) -> ManifestFields:
        """Returns the longest input, and what only an encoder has."""
        info = self.source.info
        return ManifestFields(context_length=info.max_tokens, encoder=info)
