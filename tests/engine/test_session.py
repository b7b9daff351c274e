"""The session on a real graph: what it reads from it, computes with it and refuses."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import NoReturn

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from handlers.engine.batch import Batch
from handlers.engine.session import Session
from handlers.errors import ArtifactError, EngineFault

VOCAB = 512


@pytest.fixture(scope="module")
def session(tiny_artifact: Path) -> Session:
    return load(tiny_artifact / "model.onnx")


def load(graph: Path) -> Session:
    return Session(graph, threads=1, slots=3, capacity=64)


def one_row(slot: int, past: int, ids: list[int], wanted: list[int]) -> Batch:
    return Batch(
        slot,
        np.array([ids], np.int64),
        np.array([len(ids)], np.int32),
        np.array([past + len(ids) - 1], np.int32),
        np.array(wanted, np.int64),
    )


def logits(session: Session, batch: Batch) -> NDArray[np.float32]:
    """A copy: the next call overwrites what `step` returns."""
    return session.step(batch).copy()


def test_the_shape_of_the_model_is_read_from_the_graph(session: Session) -> None:
    assert session.vocab_size == VOCAB
    assert len(session.cache.tensors) == 6
    assert {(t.sizes, t.block_size) for t in session.cache.tensors} == {
        ((2, 16, 16), 16),
        ((2, 16), 1),
    }


def test_logits_come_for_the_positions_that_are_asked_for(session: Session) -> None:
    every = session.step(one_row(0, 0, [5, 6, 7, 8], [0, 1, 2, 3]))
    some = session.step(one_row(0, 0, [5, 6, 7, 8], [3, 1]))
    assert every.shape == (4, VOCAB)
    np.testing.assert_array_equal(some, every[[3, 1]])


def test_a_chunk_of_which_no_logits_are_wanted_fills_the_cache(session: Session) -> None:
    whole = logits(session, one_row(0, 0, [5, 6, 7, 8], [3]))
    assert session.step(one_row(0, 0, [5, 6], [])).shape == (0, VOCAB)
    np.testing.assert_allclose(session.step(one_row(0, 2, [7, 8], [1])), whole, atol=1e-4)


def test_an_idle_row_between_busy_ones_keeps_its_cache(session: Session) -> None:
    alone = logits(session, one_row(1, 0, [9, 8, 7, 6], [3]))
    session.step(one_row(1, 0, [9, 8, 7], []))
    around = Batch(
        0,
        np.array([[1, 2, 3], [0, 0, 0], [4, 5, 0]], np.int64),
        np.array([3, 0, 2], np.int32),
        np.array([2, 0, 1], np.int32),
        np.array([2, 7], np.int64),
    )
    session.step(around)
    np.testing.assert_allclose(session.step(one_row(1, 3, [6], [0])), alone, atol=1e-4)


def test_all_calls_of_the_engine_write_their_logits_into_one_memory(session: Session) -> None:
    first = session.step(one_row(0, 0, [5], [0]))
    assert np.shares_memory(first, session.step(one_row(2, 0, [5, 6, 7], [0, 1, 2])))
    drafts = one_row(0, 0, list(range(24)), list(range(24)))  # three slots of eight ids
    assert np.shares_memory(first, session.step(drafts))
    longer = one_row(0, 0, list(range(25)), list(range(25)))
    assert not np.shares_memory(first, session.step(longer))


def test_the_bindings_that_are_used_are_kept_and_their_number_is_bounded(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = 8
    session = Session(tiny_artifact / "model.onnx", threads=1, slots=slots, capacity=16)
    made: list[tuple[int, int]] = []
    bind = session._bind

    def counted(first: int, rows: int) -> object:
        made.append((first, rows))
        return bind(first, rows)

    monkeypatch.setattr(session, "_bind", counted)
    usual = [*((slot, 1) for slot in range(slots)), *((0, rows) for rows in range(2, slots + 1))]
    all_there_can_be = [(a, b - a) for a, b in itertools.combinations(range(slots + 1), 2)]

    for first, rows in [*all_there_can_be, *usual, *usual]:
        session._binding(first, rows)
        assert len(session._bindings) <= 2 * slots
    made.clear()
    for first, rows in [*usual, (3, 4), *usual[2:]]:
        session._binding(first, rows)
    assert made == [(3, 4)]


def test_a_call_that_fails_is_an_engine_fault_and_the_session_goes_on(session: Session) -> None:
    before = logits(session, one_row(2, 0, [5, 6], [1]))
    with pytest.raises(EngineFault, match="ONNX Runtime failed"):
        session.step(one_row(2, 0, [VOCAB], [0]))
    np.testing.assert_array_equal(session.step(one_row(2, 0, [5, 6], [1])), before)


def test_logits_for_which_there_is_no_memory_are_an_engine_fault(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(_: int) -> NoReturn:
        raise MemoryError("25 MB")

    with monkeypatch.context() as patch:
        patch.setattr(session, "_output", no_memory)
        with pytest.raises(EngineFault, match="25 MB"):
            session.step(one_row(0, 0, [5, 6], [1]))
    assert session.step(one_row(0, 0, [5, 6], [1])).shape == (1, VOCAB)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    graph = tmp_path / "model.onnx"
    graph.write_bytes(b"not a graph")
    with pytest.raises(ArtifactError, match="cannot load"):
        load(graph)


def test_a_graph_whose_weights_are_cut_short_is_refused(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    for name in ("model.onnx", "model.onnx.data"):
        shutil.copy(tiny_artifact / name, tmp_path)
    weights = tmp_path / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-4096])
    with pytest.raises(ArtifactError, match="cannot load"):
        load(tmp_path / "model.onnx")


def test_a_graph_of_another_shape_is_refused_by_the_names_that_differ(tmp_path: Path) -> None:
    ids = helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "sequence"])
    mask = helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["batch", "all"])
    out = helper.make_tensor_value_info("logits", TensorProto.INT64, ["batch", "sequence"])
    nodes = [helper.make_node("Add", ["input_ids", "attention_mask"], ["logits"])]
    graph = helper.make_graph(nodes, "foreign", [ids, mask], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    with pytest.raises(ArtifactError, match=r"lacks .*past_key_values.*seqlens_k.*attention_mask"):
        load(tmp_path / "model.onnx")


def test_a_graph_of_the_contract_before_our_own_attention_is_refused(tmp_path: Path) -> None:
    cache: list[str | int] = ["batch", 2, "capacity", 8]
    ids: list[str | int] = ["batch", "sequence"]
    inputs = [
        helper.make_tensor_value_info("input_ids", TensorProto.INT64, ids),
        helper.make_tensor_value_info("query_seqlens", TensorProto.INT32, ["batch"]),
        helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, ["batch"]),
        helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, []),
        helper.make_tensor_value_info("logits_indices", TensorProto.INT64, ["logits"]),
        helper.make_tensor_value_info("past_key_values.0.key", TensorProto.FLOAT, cache),
    ]
    outputs = [
        helper.make_tensor_value_info("logits", TensorProto.INT64, ids),
        helper.make_tensor_value_info("present.0.key", TensorProto.FLOAT, cache),
    ]
    nodes = [
        helper.make_node("Identity", ["input_ids"], ["logits"]),
        helper.make_node("Identity", ["past_key_values.0.key"], ["present.0.key"]),
    ]
    graph = helper.make_graph(nodes, "older", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    message = r"not expected, \['total_sequence_length'\]. Export the model again"
    with pytest.raises(ArtifactError, match=message):
        load(tmp_path / "model.onnx")
