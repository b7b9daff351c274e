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
    sources = reach(Path(__file__), late=True).files
    return load_graph(kept(name, sources, lambda out: save_graph(make(), out)))


def save_graph(model: ir.Model, directory: Path) -> None:
    """The graph with its weights, and which of them are one: a tied embedding is."""
    owners: dict[tuple[int, int], str] = {}
    shared: dict[str, str] = {}
    # All are held until the end: a freed array's address may be the next one's. And each tensor is
    # asked once, as one that was loaded makes another array every time.
    tensors = {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    found = {id(tensor): tensor for tensor in tensors.values()}
    arrays = {key: tensor.numpy() for key, tensor in found.items()}
    for name, tensor in tensors.items():
        array = arrays[id(tensor)]
        if array.nbytes:
            memory = (array.__array_interface__["data"][0], array.nbytes)
            if (owner := owners.setdefault(memory, name)) != name:
                shared[name] = owner
    ir.save(model, directory / GRAPH)
    (directory / SHARED).write_text(json.dumps(shared))


def load_graph(directory: Path) -> ir.Model:
    """The graph that `save_graph` wrote, whose shared weights are one tensor again."""
    model = ir.load(directory / GRAPH)
    initializers = model.graph.initializers
    for name, owner in json.loads((directory / SHARED).read_text()).items():
        initializers[name].const_value = initializers[owner].const_value
    return model
