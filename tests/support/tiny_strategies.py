"""The steps of an export over a tiny decoder, for tests of the gates."""

from __future__ import annotations

from pathlib import Path

import msgspec

from model_export.decoder.export import DecoderStrategy
from model_export.fetch.load import LoadedModel, fetch
from model_export.recipe import FolderSource
from model_export.recipe_loader import load_decoder_recipe
from model_export.verify.exchange import DecoderGates
from tests.support.reports import ignore
from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_models import CONTEXT_LENGTH


def load_tiny(folder: Path, family: str = "llama") -> LoadedModel:
    """The tiny model of `family`, saved in `folder` and loaded as an export loads it."""
    return fetch(FolderSource(path=save_tiny_folder(folder, family)), ignore)


def tiny_strategy(loaded: LoadedModel) -> DecoderStrategy:
    """The demo's recipe, in the tiny model's context."""
    recipe = load_decoder_recipe("smollm2-135m")
    export = msgspec.structs.replace(recipe.export, context_length=CONTEXT_LENGTH)
    return DecoderStrategy(msgspec.structs.replace(recipe, export=export), loaded)


def write_exact(strategy: DecoderStrategy, gates: DecoderGates, directory: Path) -> Path:
    """Writes the graph of gate 2 into `directory`, which is returned."""
    strategy.write_exact(strategy.convert(), directory, gates, threads=1)
    return directory
