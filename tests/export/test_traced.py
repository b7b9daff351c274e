"""A graph that is kept on disk between runs is the one that would be made now."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir

from model_export.decoder.convert import convert
from tests.support.tiny_models import CONTEXT_LENGTH, tiny_model
from tests.support.traced import load_graph, save_graph, traced


def shared_weights(model: ir.Model) -> set[frozenset[str]]:
    """The names of those initialisers that are one tensor."""
    names: dict[int, set[str]] = {}
    for name, value in model.graph.initializers.items():
        names.setdefault(id(value.const_value), set()).add(name)
    return {frozenset(group) for group in names.values() if len(group) > 1}


def array_of(value: ir.Value) -> np.ndarray:
    assert value.const_value is not None
    return value.const_value.numpy()


def assert_same(found: ir.Model, expected: ir.Model) -> None:
    """Asserts that nodes, types and shapes are the same, and all weights bit for bit."""
    proto, wanted = ir.to_proto(found), ir.to_proto(expected)
    for each in (proto, wanted):
        each.graph.ClearField("initializer")
    assert proto == wanted
    assert list(found.graph.initializers) == list(expected.graph.initializers)
    for name, value in expected.graph.initializers.items():
        array, weights = array_of(found.graph.initializers[name]), array_of(value)
        assert array.dtype == weights.dtype, name
        assert array.shape == weights.shape, name
        assert array.tobytes() == weights.tobytes(), name
    assert shared_weights(found) == shared_weights(expected)


def contents(model: ir.Model) -> tuple[list[str], list[tuple[str, list[int], bytes]]]:
    """The operators in their order, and all weights."""
    arrays = [array_of(value) for value in model.graph.initializers.values()]
    weights = [(str(array.dtype), list(array.shape), array.tobytes()) for array in arrays]
    return [node.op_type for node in model.graph], sorted(weights)


def test_a_kept_graph_is_a_fresh_one(tmp_path: Path) -> None:
    fresh = convert(tiny_model("llama"), CONTEXT_LENGTH)
    # Not by names: a process that has traced before may choose others.
    assert contents(traced("llama")) == contents(fresh)

    initializers = fresh.graph.initializers
    first, *others = [name for name in initializers if name.endswith("layernorm.weight")]
    for name in others[:2]:
        initializers[name].const_value = initializers[first].const_value
    assert shared_weights(fresh) == {frozenset([first, *others[:2]])}
    for again in ("once", "twice"):  # as the fused graph, which is made of a kept one
        directory = tmp_path / again
        directory.mkdir()
        save_graph(fresh, directory)
        found = load_graph(directory)
        assert_same(found, fresh)
        fresh = found
