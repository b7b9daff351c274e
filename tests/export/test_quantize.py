"""Quantised weights: what is stored, where, and how close it stays."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from transformers import PreTrainedModel

from handlers.engine.session import register_kernels
from model_export.decoder.convert import convert
from model_export.fuse import fuse
from model_export.quantize import quantize
from model_export.quantize.block_quantizer import Blocks, affine, k_quant, symmetric
from model_export.recipe import Precision
from model_export.reporting import ExportError
from model_export.save import save
from tests.support.affine_node import dequantised, rounded, run
from tests.support.graph_runner import GraphRunner
from tests.support.reference import last_logits
from tests.support.tiny_models import CONTEXT_LENGTH, FAMILIES, tiny_model
from tests.support.traced import fused

PROMPT = [5, 99, 310, 7, 42, 8, 500, 11, 12, 13]
LAYERS = 3


def quantised(family: str, precision: Precision) -> ir.Model:
    return quantize(fused(family), precision)


def logits(model: ir.Model, directory: Path) -> np.ndarray:
    save(model, directory)
    row: np.ndarray = GraphRunner(directory / "model.onnx", 1, CONTEXT_LENGTH).step([PROMPT])[0]
    return row


def bits_of_linears(model: ir.Model) -> list[int]:
    nodes = [node for node in model.graph if node.op_type == "AffineMatMul"]
    return [node.attributes["bits"].value for node in nodes]


def quantise(matrix: np.ndarray, algorithm: str, size: int = 32) -> Blocks:
    if algorithm == "int8":
        return symmetric(matrix, 8, size)
    if algorithm in ("int5", "int6"):
        return affine(matrix, size, bits=int(algorithm[-1]))
    if algorithm == "symmetric":
        return symmetric(matrix, 4, size)
    return k_quant(matrix, size) if algorithm == "k_quant" else affine(matrix, size)


@pytest.mark.parametrize("columns", [96, 80])
@pytest.mark.parametrize(
    ("algorithm", "allowed"),
    [
        ("int8", 0.51),
        ("symmetric", 1.01),  # its values end at 7, where 8 would be needed
        ("affine", 0.51),
        ("int5", 0.51),
        ("int6", 0.51),
        ("k_quant", 2),  # it may leave out a block's ends
    ],
)
def test_blocks_are_within_so_many_steps_of_the_matrix(
    algorithm: str, allowed: float, columns: int
) -> None:
    matrix = np.random.default_rng(0).normal(size=(24, columns)).astype(np.float32)
    blocks = quantise(matrix, algorithm)
    step = np.repeat(np.abs(blocks.scales.astype(np.float32)), 32, axis=1)[:, :columns]
    assert np.all(np.abs(dequantised(blocks) - matrix) <= allowed * step)


@pytest.mark.parametrize("bits", [4, 5])
def test_affine_blocks_find_the_weights_of_a_q4_1_or_q5_1_file_again(bits: int) -> None:
    source = np.random.default_rng(0)
    scales = source.uniform(0.001, 0.1, (24, 3, 1)).astype(np.float16).astype(np.float32)
    minimums = source.normal(size=(24, 3, 1)).astype(np.float16).astype(np.float32)
    values = source.integers(0, 2**bits, (24, 3, 32))
    values[..., 0], values[..., 1] = 0, 2**bits - 1  # they span a block's range
    matrix = (scales * values.astype(np.float32) + minimums).reshape(24, 96)
    blocks = affine(matrix, 32, bits=bits)
    assert np.array_equal(blocks.values, values.reshape(24, 96))
    assert np.array_equal(blocks.scales, scales[..., 0])
    assert np.array_equal(blocks.offsets, minimums[..., 0])  # type: ignore[arg-type]


def test_int8_blocks_find_the_weights_of_a_q8_0_file_again() -> None:
    source = np.random.default_rng(0)
    scales = source.uniform(0.001, 0.1, (24, 3, 1)).astype(np.float16).astype(np.float32)
    values = source.integers(-127, 128, (24, 3, 32))
    values[..., 0] = -127  # Q8_0 gives each block's largest 127
    blocks = symmetric((scales * values.astype(np.float32)).reshape(24, 96), 8, 32)
    assert np.array_equal(blocks.values, values.reshape(24, 96))
    assert np.array_equal(blocks.scales, scales[..., 0])


@pytest.mark.parametrize("algorithm", ["int8", "symmetric", "affine", "int5"])
def test_a_block_of_one_value_is_that_value(algorithm: str) -> None:
    matrix = np.full((2, 64), -0.25, np.float32)
    np.testing.assert_allclose(dequantised(quantise(matrix, algorithm)), matrix, rtol=1e-3)
    assert np.all(dequantised(quantise(np.zeros_like(matrix), algorithm)) == 0)


@pytest.mark.parametrize("family", ["llama", "qwen2"])  # qwen2 has biases
def test_affine_weights_on_the_grid_lose_little(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    put_on_the_grid(model)
    exact = fuse(convert(model, CONTEXT_LENGTH))
    expected = logits(exact, tmp_path / "exact")
    found = logits(quantize(exact, Precision("int4", lm_head="fp32")), tmp_path / "affine")
    assert np.corrcoef(found, expected)[0, 1] > 0.999  # the activations are rounded


def put_on_the_grid(model: PreTrainedModel) -> None:
    """Gives every linear layer below the output projection weights that 4 bits can hold."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            grid = dequantised(affine(module.weight.detach().numpy(), 32))
            module.weight.data = torch.from_numpy(grid.astype(np.float32))


@pytest.mark.parametrize("columns", [64, 80])
@pytest.mark.parametrize("algorithm", ["int8", "symmetric", "affine", "k_quant"])
def test_onnx_runtime_reads_the_blocks_as_they_were_meant(
    columns: int, algorithm: str, tmp_path: Path
) -> None:
    precision = Precision("int8") if algorithm == "int8" else Precision("int4", algorithm=algorithm)
    source = np.random.default_rng(0)
    table = source.normal(size=(20, columns)).astype(np.float32)
    weight = source.normal(size=(columns, 24)).astype(np.float32)
    save(quantize(embedding_and_linear(table, weight), precision), tmp_path)
    options = onnxruntime.SessionOptions()
    register_kernels(options)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options)
    hidden = dequantised(quantise(table, algorithm)).astype(np.float32)
    expected = rounded(hidden) @ dequantised(quantise(np.ascontiguousarray(weight.T), algorithm)).T
    np.testing.assert_allclose(run(session, np.arange(20)), expected, rtol=1e-3, atol=1e-3)


def embedding_and_linear(table: np.ndarray, weight: np.ndarray) -> ir.Model:
    """Gather(table, x) @ weight."""
    nodes = [
        onnx.helper.make_node("Gather", ["table", "x"], ["hidden"]),
        onnx.helper.make_node("MatMul", ["hidden", "weight"], ["y"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT64, ["n"])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 24])],
        [
            onnx.numpy_helper.from_array(table, "table"),
            onnx.numpy_helper.from_array(weight, "weight"),
        ],
    )
    opset = onnx.helper.make_opsetid("", 20)
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9))


def test_a_square_matrix_that_is_read_both_ways_is_quantised_for_each(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "weight"], ["once"]),
        onnx.helper.make_node("Gemm", ["once", "weight"], ["y"], transB=1),
    ]
    shape: list[str | int | None] = ["n", 64]
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)],
        [onnx.numpy_helper.from_array(weight, "weight")],
    )
    opset = onnx.helper.make_opsetid("", 20)
    model = ir.from_proto(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9))
    save(quantize(model, Precision("int8")), tmp_path)
    options = onnxruntime.SessionOptions()
    register_kernels(options)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options)
    x = np.eye(64, dtype=np.float32)
    assert np.corrcoef(run(session, x).ravel(), (weight @ weight.T).ravel())[0, 1] > 0.99


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_int8_stays_close_to_the_model(family: str, tmp_path: Path) -> None:
    expected = last_logits(tiny_model(family), PROMPT)
    found = logits(quantised(family, Precision(weights="int8")), tmp_path)
    assert np.corrcoef(found, expected)[0, 1] > 0.98  # of random weights, gemma2 has the least


@pytest.mark.parametrize(
    "precision",
    [
        Precision("int4"),
        Precision("int4", algorithm="symmetric", lm_head="int8"),
        Precision("int4", algorithm="k_quant", lm_head="int8", mixed_layers=True),
        Precision("int4", lm_head="fp32"),
        Precision("int4", block_size=64, lm_head="int8"),
    ],
    ids=Precision.describe,
)
def test_each_precision_runs_and_resembles_the_model(precision: Precision, tmp_path: Path) -> None:
    expected = last_logits(tiny_model("qwen2"), PROMPT)  # has biases, and an embedding of its own
    found = logits(quantised("qwen2", precision), tmp_path)
    assert np.corrcoef(found, expected)[0, 1] > 0.6  # 4 bits are coarse for random weights


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_an_answers_bits_depend_on_no_other_row_and_no_chunking(
    family: str, tmp_path: Path
) -> None:
    save(quantised(family, Precision("int4")), tmp_path)
    graph = tmp_path / "model.onnx"
    prompt = PROMPT * 2  # longer than a window
    alone = GraphRunner(graph, 1, CONTEXT_LENGTH).step([prompt])[0]
    for size in (1, 2, 7):
        beside = GraphRunner(graph, 3, CONTEXT_LENGTH)
        chunks = [prompt[start : start + size] for start in range(0, len(prompt), size)]
        *_, last = [beside.step([[7, 8, 9], chunk, []]) for chunk in chunks]
        assert np.array_equal(last[1], alone)


def test_the_cache_is_of_half_the_width_in_blocks_of_keys(tmp_path: Path) -> None:
    for precision, dtype in ((Precision("fp32"), "FLOAT"), (Precision("int4"), "FLOAT16")):
        graph = quantised("llama", precision).graph
        caches = [value for value in graph.inputs if str(value.name).startswith("past")]
        assert {value.dtype.name for value in caches if value.dtype} == {dtype}
        assert list(map(str, caches[0].shape or ())) == ["batch", "2", "blocks", "16", "16"]
        assert [value.shape for value in graph.outputs[1:]] == [value.shape for value in caches]


def test_every_linear_layer_and_the_embedding_are_quantised() -> None:
    found = Counter(node.op_type for node in quantised("qwen2", Precision("int4")).graph)
    assert found["AffineMatMul"] == 5 * LAYERS + 1
    assert found["AffineGather"] == 1
    assert found["MatMul"] == found["Gemm"] == found["Add"] == 0  # the biases are inputs


def test_fp32_quantises_nothing() -> None:
    model = fused("llama")
    before = Counter(node.op_type for node in model.graph)
    assert Counter(node.op_type for node in quantize(model, Precision("fp32")).graph) == before


def test_the_output_projection_has_bits_of_its_own() -> None:
    assert bits_of_linears(quantised("llama", Precision("int4", lm_head="int8"))) == [4] * 15 + [8]


def test_mixed_layers_are_the_attention_input_and_the_down_projection() -> None:
    bits = bits_of_linears(quantised("llama", Precision("int4", mixed_layers=True)))
    packed, output, gate, up, down = 8, 4, 4, 4, 8
    upgraded, plain = [packed, output, gate, up, down], [4] * 5
    # of three layers, llama.cpp's rule takes the first and the last
    assert bits == [*upgraded, *plain, *upgraded, 4]


def test_a_tied_embedding_and_output_projection_read_the_same_initialisers(tmp_path: Path) -> None:
    save(quantised("llama", Precision("int4")), tmp_path)
    model = ir.load(tmp_path / "model.onnx")
    gather = next(node for node in model.graph if node.op_type == "AffineGather")
    head = [node for node in model.graph if node.op_type == "AffineMatMul"][-1]
    assert gather.inputs[1:4] == head.inputs[1:4]
    offsets = [value.const_value.offset for value in gather.inputs[1:4]]  # type: ignore[union-attr]
    assert all(offset % 4096 == 0 for offset in offsets)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"weights": "int3"},
            "weights is 'int3', but must be one of 'fp32', 'compact4', 'int4', 'compact5'",
        ),
        ({"block_size": 48}, "block_size is 48"),
        ({"algorithm": "gptq"}, "algorithm is 'gptq'"),
        ({"lm_head": "int2"}, "lm_head is 'int2'"),
        ({"weights": "fp32", "lm_head": "int8"}, "quantises nothing"),
        ({"weights": "int8", "mixed_layers": True}, 'use "int4"'),
        ({"weights": "auto", "mixed_layers": True}, 'use "int4"'),
        ({"weights": "int4", "max_mb": 100.0}, 'max_mb is a limit of weights = "auto"'),
        ({"weights": "auto", "max_mb": 0.0}, "max_mb must be above 0"),
    ],
)
def test_a_precision_that_is_none_says_what_to_change(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        Precision(**values)  # type: ignore[arg-type]


def test_a_precision_describes_itself() -> None:
    precision = Precision("int4", algorithm="k_quant", lm_head="int8", mixed_layers=True)
    assert precision.describe() == "int4 k_quant block 32, int8 lm_head, int8 mixed layers"
    assert Precision("int4").describe() == "int4 affine block 32"
    assert Precision("int8", 64).describe() == "int8 block 64"
    assert Precision("fp32").describe() == "fp32"
    assert Precision("int5", lm_head="int6").describe() == "int5 block 32, int6 lm_head"
    auto = "auto: affine block 32"
    assert Precision("auto").describe() == auto
    assert Precision("auto").describe("3 int4, 6 int5") == f"{auto}, 3 int4, 6 int5"
    assert Precision("auto", max_mb=105.5).describe("9 int4") == f"{auto}, at most 105.5 MB, 9 int4"
    named = Precision("auto", lm_head="int4").describe("3 int4, 6 int5")
    assert named == f"{auto}, 3 int4, 6 int5, int4 lm_head"
