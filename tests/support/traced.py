"""Tiny models that are traced once for each state of the exporter, since a trace takes seconds.

Every caller gets a copy of its own, which shares the weights and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import onnx_ir as ir

from model_export.decoder.convert import convert
from model_export.fuse import fuse
from tests.support.import_graph import reach
from tests.support.kept import kept
from tests.support.tiny_models import CONTEXT_LENGTH, tiny_model

GRAPH, SHARED = "graph.onnx", "shared.json"


def traced(family: str) -> ir.Model:
    """The graph of `tiny_model(family)` as `convert` makes it."""
    return _traced(family).clone()


def fused(family: str) -> ir.Model:
    """The same after all passes of `fuse`."""
    return _fused(family).clone()


@cache
def _traced(family: str) -> ir.Model:
    return _kept(f"traced-{family}", lambda: convert(tiny_model(family), CONTEXT_LENGTH))


@cache
def _fused(family: str) -> ir.Model:
    return _kept(f"fused-{family}", lambda: fuse(traced(family)))


def _kept(name: str, make: Callable[[], ir.Model]) -> ir.Model:
    return _load(kept(name, reach(Path(__file__), late=True).files, lambda out: _save(make(), out)))


def _save(model: ir.Model, directory: Path) -> None:
    """The graph with its weights, and which of them are one: a tied embedding is."""
    owners: dict[tuple[int, int], str] = {}
    shared: dict[str, str] = {}
    # All are held until the end: a freed array's address may be the next one's.
    arrays = {
        name: value.const_value.numpy()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    for name, array in arrays.items():
        if array.nbytes:
            memory = (array.__array_interface__["data"][0], array.nbytes)
            if (owner := owners.setdefault(memory, name)) != name:
                shared[name] = owner
    ir.save(model, directory / GRAPH)
    (directory / SHARED).write_text(json.dumps(shared))


def _load(directory: Path) -> ir.Model:
    model = ir.load(directory / GRAPH)
    initializers = model.graph.initializers
    for name, owner in json.loads((directory / SHARED).read_text()).items():
        initializers[name].const_value = initializers[owner].const_value
    return model
