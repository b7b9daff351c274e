"""A saved graph is what was in memory, written once for each piece of memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from model_export.save import save


def test_equally_large_tensors_that_make_their_arrays_on_demand_stay_apart(tmp_path: Path) -> None:
    arrays = [np.full((64, 64), number, np.float32) for number in range(6)]
    values = []
    for number, array in enumerate(arrays):
        proto = onnx.numpy_helper.from_array(array, name=f"w{number}")
        value = ir.Value(name=proto.name, const_value=ir.serde.TensorProtoTensor(proto))
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(array.shape)
        values.append(value)
    graph = ir.Graph([], values, nodes=[], initializers=values, opset_imports={"": 20}, name="g")
    save(ir.Model(graph, ir_version=10), tmp_path)
    written = onnx.load(tmp_path / "model.onnx").graph.initializer
    for array, tensor in zip(arrays, written, strict=True):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), array)


def test_two_views_of_one_memory_are_written_once(tmp_path: Path) -> None:
    shared = np.ones((64, 64), np.float32)
    values = []
    for name in ("embedding", "projection"):
        value = ir.Value(name=name, const_value=ir.tensor(shared, name=name))
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shared.shape)
        values.append(value)
    graph = ir.Graph([], values, nodes=[], initializers=values, opset_imports={"": 20}, name="g")
    save(ir.Model(graph, ir_version=10), tmp_path)
    assert (tmp_path / "model.onnx.data").stat().st_size == shared.nbytes
