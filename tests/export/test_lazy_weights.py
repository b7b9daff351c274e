"""Weights that are not in memory: nobody reads them before the graph is written."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from model_export.decoder.convert import convert
from model_export.fetch.stand_ins import stand_in
from model_export.fuse import cleanup, fuse
from model_export.fuse.linears import plain_linears
from model_export.lazy_tensors import GroupTensor, WeightTensor
from model_export.quantize import quantize
from model_export.quantize.quantized_tensors import quantized_tensors
from model_export.recipe import BITS, Precision
from model_export.save import save
from model_export.weights import ArrayWeight, Floats
from tests.support.graph_runner import GraphRunner
from tests.support.plain_quantizer import quantised
from tests.support.tiny_models import CONTEXT_LENGTH, tiny_model
from tests.support.traced import fused

SMALL = 2000
"""Values up to which a weight of the tests is in memory; the exporter's own limit is higher."""
PROMPT = [5, 99, 310, 7, 42, 8, 500, 11, 12, 13]


@dataclass
class Lock:
    """Closed while nobody may read a weight."""

    closed: bool = True
    reads: int = field(default=0)


@dataclass(frozen=True)
class LockedWeight:
    array: Floats
    lock: Lock

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        assert not self.lock.closed, f"a weight of the shape {self.shape} is read too early"
        self.lock.reads += 1
        return self.array[start:stop]


def give_stand_ins(model: torch.nn.Module, lock: Lock) -> None:
    """Replaces the model's large parameters; those that are tied stay so."""
    made: dict[torch.nn.Parameter, torch.nn.Parameter] = {}
    for owner in model.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            if parameter.numel() > SMALL:
                if parameter not in made:
                    made[parameter] = stand_in(LockedWeight(parameter.detach().numpy(), lock))
                setattr(owner, name, made[parameter])


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3", "gpt2", "phi3", "hybrid"])
@pytest.mark.parametrize("weights", ["int4", "fp32"])
def test_no_pass_reads_a_weight_and_the_answers_stay(
    family: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "_FOLD_LIMIT", SMALL)
    model, lock = tiny_model(family), Lock()
    give_stand_ins(model, lock)
    graph = quantize(fuse(convert(model, CONTEXT_LENGTH)), Precision(weights))
    lock.closed = False
    found = logits(graph, tmp_path / "found")
    assert lock.reads
    expected = logits(quantize(fused(family), Precision(weights)), tmp_path / "expected")
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def logits(model: ir.Model, directory: Path) -> np.ndarray:
    save(model, directory)
    row: np.ndarray = GraphRunner(directory / "model.onnx", 1, CONTEXT_LENGTH).step([PROMPT])[0]
    return row


@pytest.mark.parametrize("algorithm", ["int8", "symmetric", "affine", "k_quant", "int5", "int6"])
@pytest.mark.parametrize("block_size", [32, 64, 128, 256])
@pytest.mark.parametrize("shape", [(48, 256), (20, 80), (33, 500), (16, 33)])
@pytest.mark.parametrize("scale", [1, 1e-3, 1e-7])  # the last one is too small for float16
def test_quantised_tensors_are_to_the_bit_those_of_the_plain_quantiser(
    algorithm: str, block_size: int, shape: tuple[int, int], scale: float
) -> None:
    source = np.random.default_rng(0)
    matrix = (source.standard_t(3, size=shape) * scale).astype(np.float32)
    matrix[3], matrix[5], matrix[7, :32] = 0, 0.25, -0.5
    bits = BITS.get(algorithm, 4)
    tensors = quantized_tensors(ArrayWeight(matrix), bits, block_size, algorithm)
    expected = quantised(matrix, algorithm, block_size)
    found = [tensor for tensor in tensors if tensor is not None]
    assert len(found) == len(expected)
    for tensor, array in zip(found, expected, strict=True):
        assert_holds(tensor, array)


def assert_holds(tensor: GroupTensor, array: np.ndarray) -> None:
    assert tuple(tensor.shape.numpy()) == array.shape
    assert tensor.dtype == ir.DataType.from_numpy(array.dtype)
    assert tensor.tobytes() == array.tobytes()


@pytest.mark.parametrize(
    "algorithm", ["int8", "symmetric", "affine", "k_quant", "int5", "int6", "compact"]
)
def test_a_matrix_quantised_in_slices_is_the_matrix_quantised_whole(algorithm: str) -> None:
    matrix = np.random.default_rng(0).normal(size=(75, 96)).astype(np.float32)
    bits = BITS.get(algorithm, 4)
    group = quantized_tensors(ArrayWeight(matrix), bits, 32, algorithm)[0].group
    whole = group.compute(matrix)
    for start, stop in ((0, 16), (16, 48), (48, 75)):
        entries = slice(start // 16, -(-stop // 16))
        for part, array in zip(group.compute(matrix[start:stop]), whole, strict=True):
            assert np.array_equal(part, array[entries])


def test_the_matrix_of_one_expert_is_a_weight_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers 5 stacks the matrices of all experts."""
    monkeypatch.setattr(cleanup, "_FOLD_LIMIT", SMALL)
    experts = np.random.default_rng(0).normal(size=(3, 24, 64)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("Gather", ["experts", "number"], ["picked"], axis=0),
        onnx.helper.make_node("Transpose", ["picked"], ["turned"], perm=[1, 0]),
        onnx.helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 64])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 24])],
        [
            onnx.numpy_helper.from_array(experts, "experts"),
            onnx.numpy_helper.from_array(np.array(1), "number"),
        ],
    )
    model = ir.from_proto(onnx.helper.make_model(graph))
    lock = Lock()
    model.graph.initializers["experts"].const_value = WeightTensor(LockedWeight(experts, lock))
    fuse(model, [cleanup.clean, plain_linears])
    quantize(model, Precision("int8"))
    (node,) = model.graph
    assert node.op_type == "AffineMatMul"
    lock.closed = False
    for value, array in zip(node.inputs[1:3], quantised(experts[1], "int8", 32), strict=True):
        assert value is not None
        assert isinstance(value.const_value, GroupTensor)
        assert_holds(value.const_value, array)
