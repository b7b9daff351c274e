"""Exports a decoder: the steps of pipeline.Strategy that an encoder does in another way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from model_export.decoder.generation_config import (
    sampling_defaults,
    stop_token_ids,
    unsupported_defaults,
)
from model_export.decoder.reference import make_reference
from model_export.fetch.load import LoadedModel, fetch
from model_export.manifest import ManifestFields
from model_export.recipe import DecoderRecipe
from model_export.reporting import Report
from model_export.verify.exchange import DecoderGates, DecoderReference

if TYPE_CHECKING:
    import onnx_ir as ir

    from model_export.fuse import Pass


@dataclass(frozen=True, slots=True)
class DecoderStrategy:
    """The export of a model that generates text."""

    recipe: DecoderRecipe
    loaded: LoadedModel

    @classmethod
    def load(cls, recipe: DecoderRecipe, report: Report) -> DecoderStrategy:
        """Downloads what is not on disk, then loads the model in fp32. Raises ExportError."""
        loaded = fetch(recipe.source, report)
        if line := unsupported_defaults(loaded.generation_config):
            report(line)
        return cls(recipe, loaded)

    def reference(self, report: Report) -> DecoderReference:
        """Encodes and answers the corpus with transformers."""
        report("reference: transformers' ids and greedy answers on the corpus")
        return make_reference(self.loaded, self.recipe.export.context_length)

    def convert(self) -> ir.Model:
        """Traces the graph in the decoder's contract, with its cache."""
        from model_export.decoder.convert import convert

        return convert(self.loaded.model, self.recipe.export.context_length)

    def passes(self) -> Sequence[Pass]:
        """Returns the passes of a decoder's graph."""
        from model_export.fuse import DECODER_PASSES

        return DECODER_PASSES

    def gates(self, reference: DecoderReference) -> DecoderGates:
        """Asks for ids, greedy answers, drift, and the prefix that is to be baked in."""
        prefix = self.recipe.prefix
        return DecoderGates(
            reference=reference,
            tolerance=self.recipe.tolerance,
            system_prompt=prefix.system_prompt if prefix else None,
        )

    def manifest_fields(self) -> ManifestFields:
        """Returns the longest sequence, the ids that end an answer, and sampling defaults."""
        rows = self.loaded.vocabulary_size
        return ManifestFields(
            context_length=self.recipe.export.context_length,
            eos_token_ids=tuple(i for i in stop_token_ids(self.loaded) if i < rows),
            sampling=sampling_defaults(self.loaded.generation_config),
        )
