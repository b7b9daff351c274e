"""Makes the graphs that bench.draft runs: shapes of shipped recipes, random weights, no gates.

    python -m bench.draft_models RECIPE WEIGHTS [LAYERS]

A folder of a model goes to build/draft/RECIPE/ (bench.random_model), its graph to
build/draft/RECIPE/WEIGHTS/, and beside it one of its first layers, if so many are asked for. The
weights are one of the recipe's words, "int4" or "compact4", with the output projection in int8;
neither reference nor calibration is computed, so that a graph takes minutes and not an hour.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.folder_recipe import RECIPE
from bench.prepare import run_once
from bench.servers import ROOT, python
from handlers.artifact.manifest import DRAFT_GRAPH, GRAPH
from handlers.cpus import available_cpus

if TYPE_CHECKING:
    import onnx_ir as ir

DIRECTORY = ROOT / "build" / "draft"
HEAD = "int8"
"""The output projection's weights."""
IDS = range(100, 49_000)
"""Ids that are in the vocabulary of every pair and not special."""


def pair_of(words: str) -> tuple[str, str]:
    """Returns what "MODEL+DRAFT" names: two recipes, or one and a number of its own layers.

    Raises ValueError for other words.
    """
    model, draft = words.split("+")
    return model, draft


def graph_of(name: str, weights: str) -> Path:
    """Returns the file of a recipe's graph, made before if there is none."""
    path = DIRECTORY / name / weights / GRAPH
    run_once(path, python("-m", "bench.draft_models", name, weights))
    return path


def own_layers_of(name: str, weights: str, layers: int) -> Path:
    """Returns the file of the graph of a model's first layers, made before if there is none."""
    path = graph_of(name, weights).with_name(f"draft-{layers}.onnx")
    run_once(path, python("-m", "bench.draft_models", name, weights, str(layers)))
    return path


def folder_of(name: str) -> Path:
    """Returns the folder of a recipe's random model, written before if there is none."""
    directory = DIRECTORY / name
    if not (directory / RECIPE).is_file():
        subprocess.run(python("-m", "bench.random_model", name, str(directory)), check=True)
    return directory


def make(name: str, weights: str, layers: int | None = None) -> None:
    """Writes a model's graph, or that of its first layers beside it, in its place when whole."""
    # Here, since torch is imported with them.
    from model_export.decoder.convert import convert
    from model_export.draft.own_layers import write_own_layers
    from model_export.fetch.load import fetch
    from model_export.fuse import DECODER_PASSES, fuse
    from model_export.quantize import quantize
    from model_export.recipe import Precision
    from model_export.recipe_loader import load_decoder_recipe
    from model_export.reporting import console
    from model_export.save import save

    directory, report = folder_of(name), console()
    recipe = load_decoder_recipe(str(directory / RECIPE))
    model = fetch(recipe.source, report).model
    precision = Precision(weights, lm_head=HEAD)

    def converted() -> ir.Model:
        return fuse(convert(model, recipe.export.context_length), DECODER_PASSES)

    whole, unfinished = directory / weights, directory / f"{weights}.part"
    if layers is not None:
        write_own_layers(model, layers, converted, precision, whole)
        (whole / DRAFT_GRAPH).rename(whole / f"draft-{layers}.onnx")
        return
    save(quantize(converted(), precision), unfinished, threads=available_cpus(), report=report)
    unfinished.rename(whole)


if __name__ == "__main__":
    make(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
