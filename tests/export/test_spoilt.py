"""A graph that is wrong in one layer fails gate 2, and gate 3 where the whole model has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from handlers.artifact.manifest import GRAPH
from handlers.engine.session import Session
from handlers.text.tokenizer import Tokenizer
from model_export.decoder.export import DecoderStrategy
from model_export.fuse.graphs import add_initializer, constant, producer
from model_export.quantize import quantize
from model_export.recipe import DecoderTolerance, Precision
from model_export.reporting import ExportError
from model_export.save import save
from model_export.verify.conversion import check_greedy, check_logits, cut_engine
from model_export.verify.drift import WINDOW, RecordedLogits, check_drift, compare
from model_export.verify.exchange import DecoderGates
from tests.support.reports import ignore
from tests.support.tiny_strategies import load_tiny, tiny_strategy, write_exact
from tests.support.tiny_tokenizers import VOCABULARY, tiny_tokenizer

HEAD = 16
"""Values of a head of the tiny Mistral, whose window is 12 tokens."""
LIMITS = DecoderTolerance(max_kl=0.05, min_top1_agreement=0.80, max_perplexity_ratio=1.05)
"""The shipped recipes' own, but for the agreement: random weights have many near ties."""

Spoil = Callable[[ir.Model, ir.Node], None]


def swap_heads(model: ir.Model, attention: ir.Node) -> None:
    """The first query head and the second."""
    product = producer(attention.inputs[0], "MatMul")
    assert product is not None
    matrix = _array(product.inputs[1]).copy()
    first, second = matrix[:, :HEAD].copy(), matrix[:, HEAD : 2 * HEAD].copy()
    matrix[:, :HEAD], matrix[:, HEAD : 2 * HEAD] = second, first
    product.replace_input_with(1, add_initializer(model, "spoilt", matrix))


def narrow_window(_: ir.Model, attention: ir.Node) -> None:
    """By one token."""
    attention.attributes["window"] = ir.AttrInt64(
        "window", attention.attributes["window"].as_int() - 1
    )


def shift_rotary(model: ir.Model, attention: ir.Node) -> None:
    """The cosines by one position, the sines not."""
    table = np.roll(_array(attention.inputs[7]), 1, axis=0)
    attention.replace_input_with(7, add_initializer(model, "spoilt", table))


def transpose_matrix(model: ir.Model, attention: ir.Node) -> None:
    """The output projection of the attention, which is square."""
    (product,) = {use.node for use in attention.outputs[0].uses()}
    matrix = _array(product.inputs[1])
    product.replace_input_with(1, add_initializer(model, "spoilt", matrix.T.copy()))


SPOILS = (swap_heads, narrow_window, shift_rotary, transpose_matrix)


def _array(value: ir.Value | None) -> np.ndarray:
    array = constant(value)
    if array is None:
        assert value is not None
        assert value.const_value is not None
        array = value.const_value.numpy()
    return np.asarray(array)


def _last_attention(model: ir.Model) -> ir.Node:
    return [node for node in model.graph if node.op_type == "Attention"][-1]


@pytest.fixture(scope="module")
def strategy(tmp_path_factory: pytest.TempPathFactory) -> DecoderStrategy:
    return tiny_strategy(load_tiny(tmp_path_factory.mktemp("tiny"), "mistral"))


@pytest.fixture(scope="module")
def gates(strategy: DecoderStrategy, tmp_path_factory: pytest.TempPathFactory) -> DecoderGates:
    return strategy.reference(tmp_path_factory.mktemp("reference"), ignore)


@pytest.fixture(scope="module")
def exact(
    strategy: DecoderStrategy, gates: DecoderGates, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return write_exact(strategy, gates, tmp_path_factory.mktemp("exact"))


def pass_gate_2(directory: Path, gates: DecoderGates) -> dict[str, Any]:
    cut = gates.reference.cut
    exact = check_logits(cut, directory / GRAPH, threads=1)
    engine = cut_engine(directory / GRAPH, cut, threads=1)
    return exact | check_greedy(cut, engine, Tokenizer(tiny_tokenizer()))


def pass_gate_3(graph: ir.Model, directory: Path, gates: DecoderGates) -> dict[str, Any]:
    save(quantize(graph, Precision("int8")), directory)
    session = Session(directory / GRAPH, threads=1, slots=1, capacity=WINDOW)
    windows = gates.reference.windows
    said = RecordedLogits(gates.reference.logits, VOCABULARY)
    return check_drift(
        compare(said, session, windows), LIMITS, windows, Tokenizer(tiny_tokenizer())
    )


def test_the_right_graphs_pass(
    strategy: DecoderStrategy, gates: DecoderGates, exact: Path, tmp_path: Path
) -> None:
    assert pass_gate_2(exact, gates)["prompts"] == len(gates.reference.cut.answers)
    tokens = sum(map(len, gates.reference.windows))
    assert pass_gate_3(strategy.convert(), tmp_path, gates)["tokens"] == tokens


@pytest.mark.parametrize("spoil", SPOILS)
def test_gate_2_fails_a_cut_graph_that_is_wrong_in_one_layer(
    gates: DecoderGates, exact: Path, tmp_path: Path, spoil: Spoil
) -> None:
    graph = ir.load(exact / GRAPH)
    spoil(graph, _last_attention(graph))
    save(graph, tmp_path)
    with pytest.raises(ExportError, match="Gate 2 failed"):
        pass_gate_2(tmp_path, gates)


@pytest.mark.parametrize("spoil", SPOILS)
def test_gate_3_fails_a_whole_graph_that_is_wrong_in_one_layer(
    strategy: DecoderStrategy, gates: DecoderGates, tmp_path: Path, spoil: Spoil
) -> None:
    graph = strategy.convert()
    spoil(graph, _last_attention(graph))
    with pytest.raises(ExportError, match="Gate 3 failed"):
        pass_gate_3(graph, tmp_path, gates)
