"""Exports a decoder: the steps of pipeline.Strategy that an encoder does in another way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from model_export.decoder.generation_config import (
    sampling_defaults,
    stop_token_ids,
    unsupported_defaults,
)
from model_export.decoder.reference import make_reference
from model_export.dialect.analysis import Templates, find_dialect
from model_export.fetch.load import LoadedModel, fetch
from model_export.manifest import ManifestFields, special_tokens
from model_export.recipe import DecoderRecipe
from model_export.reporting import Report
from model_export.verify.exchange import DecoderGates

if TYPE_CHECKING:
    import onnx_ir as ir

    from model_export.decoder.calibration import InputSquares

IMPORTANCE = "importance.safetensors"
"""The file of what the reference measures of the inputs of linear layers."""


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

    def reference(self, directory: Path, report: Report) -> DecoderGates:
        """Computes ids, answers and logits of the corpus with transformers.

        The gates ask for these, for drift, and for the prefix that is to be baked in.
        """
        prefix, inputs = self.recipe.prefix, self._inputs(report)
        reference = make_reference(self.loaded, self.recipe, directory, report, inputs)
        if inputs is not None:
            inputs.save(directory / IMPORTANCE)
        return DecoderGates(
            reference=reference,
            tolerance=self.recipe.tolerance,
            system_prompt=prefix.system_prompt if prefix else None,
            draft=self.recipe.draft,
        )

    def _inputs(self, report: Report) -> InputSquares | None:
        """Returns what measures the inputs of linear layers, None where no weight asks for it."""
        from model_export.decoder.calibration import InputSquares, calibration_windows

        recipe = self.recipe
        if not recipe.precision.is_calibrated:
            return None
        own_text = recipe.calibration.text if recipe.calibration else None
        windows = calibration_windows(self.loaded, recipe.export.context_length, own_text)
        text = "the recipe's own" if recipe.calibration else "the shipped"
        report(f"calibration: {sum(map(len, windows)):,} tokens of {text} text")
        return InputSquares(windows)

    def calibrate(self, directory: Path) -> None:
        """Gives the weights what `reference` measured of their inputs, with the same directory."""
        from model_export.decoder.calibration import attach

        if (directory / IMPORTANCE).is_file():
            attach(self.loaded.model, directory / IMPORTANCE)

    def convert(self) -> ir.Model:
        """Traces the graph in the decoder's contract, with its cache, and makes it fast."""
        from model_export.decoder.convert import convert
        from model_export.fuse import DECODER_PASSES, fuse

        graph = convert(self.loaded.model, self.recipe.export.context_length)
        return fuse(graph, DECODER_PASSES)

    def write_exact(self, _: ir.Model, directory: Path, gates: DecoderGates, threads: int) -> None:
        """Writes the graph of the model cut to one of each kind of layer."""
        from model_export.decoder.cut import cut_to_kinds
        from model_export.save import save

        with cut_to_kinds(self.loaded.model, gates.reference.cut.vocabulary):
            save(self.convert(), directory, threads=threads)

    def manifest_fields(self, report: Report) -> ManifestFields:
        """Returns the longest sequence, the ids that end an answer, its form, and defaults."""
        rows = self.loaded.vocabulary_size
        ends = tuple(i for i in stop_token_ids(self.loaded) if i < rows)
        return ManifestFields(
            context_length=self.recipe.export.context_length,
            eos_token_ids=ends,
            sampling=sampling_defaults(self.loaded.generation_config),
            dialect=find_dialect(self._templates(ends), report),
        )

    def _templates(self, ends: tuple[int, ...]) -> Templates:
        loaded = self.loaded
        return Templates(
            loaded.chat_template,
            loaded.tool_template,
            special_tokens(loaded),
            loaded.tokenizer.convert_ids_to_tokens(list(ends)),
        )
