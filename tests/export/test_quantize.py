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

from model_export.block_quantizer import Blocks, affine, k_quant, round_to_nearest
from model_export.convert import convert, save
from model_export.errors import ExportError
from model_export.fuse import fuse
from model_export.quantize import Precision, quantize
from tests.support.graph_runner import GraphRunner
from tests.support.reference import last_logits
from tests.support.tiny_models import CONTEXT_LENGTH, FAMILIES, tiny_model

PROMPT = [5, 99, 310, 7, 42, 8, 500, 11, 12, 13]
LAYERS = 3
AFFINE = Precision(algorithm="affine", symmetric=False, lm_head="int8")


def quantised(family: str, precision: Precision) -> ir.Model:
    return quantize(fuse(convert(tiny_model(family), CONTEXT_LENGTH)), precision)


def logits(model: ir.Model, directory: Path) -> np.ndarray:
    save(model, directory)
    row: np.ndarray = GraphRunner(directory / "model.onnx", 1, CONTEXT_LENGTH).step([PROMPT])[0]
    return row


def bits_of_linears(model: ir.Model) -> list[int]:
    nodes = [node for node in model.graph if node.op_type == "MatMulNBits"]
    return [node.attributes["bits"].value for node in nodes]


def dequantised(blocks: Blocks) -> np.ndarray:
    """The definition in ONNX Runtime's documentation, one value at a time."""
    values, zeros = blocks.packed, blocks.zero_points
    if blocks.bits == 4:
        values = np.stack([values & 15, values >> 4], axis=-1).reshape(*values.shape[:2], -1)
        if zeros is not None:
            zeros = np.stack([zeros & 15, zeros >> 4], axis=-1).reshape(len(zeros), -1)
    if zeros is None:
        zeros = np.full(blocks.scales.shape, 2 ** (blocks.bits - 1))
    zeros = zeros[:, : blocks.scales.shape[1], None].astype(np.float32)
    matrix = (values.astype(np.float32) - zeros) * blocks.scales[..., None]
    if blocks.offsets is not None:
        matrix += blocks.offsets[..., None]
    return matrix.reshape(blocks.rows, -1)[:, : blocks.columns]


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("algorithm", ["symmetric", "asymmetric", "k_quant"])
def test_blocks_are_within_half_a_step_of_the_matrix(bits: int, algorithm: str) -> None:
    matrix = np.random.default_rng(0).normal(size=(24, 80)).astype(np.float32)
    if algorithm == "k_quant":
        blocks = k_quant(matrix, bits, 32)
    else:
        blocks = round_to_nearest(matrix, bits, 32, algorithm == "symmetric")
    step = np.repeat(np.abs(blocks.scales), 32, axis=1)[:, :80]
    allowed = {"symmetric": 1.01, "asymmetric": 1.01, "k_quant": 2.5}[algorithm]
    assert np.all(np.abs(dequantised(blocks) - matrix) <= allowed * step)


def test_affine_blocks_are_within_half_a_step_of_the_matrix() -> None:
    matrix = np.random.default_rng(0).normal(size=(24, 96)).astype(np.float32)
    blocks = affine(matrix, 32)
    step = np.repeat(blocks.scales, 32, axis=1)
    assert np.all(np.abs(dequantised(blocks) - matrix) <= 0.501 * step)


def test_affine_blocks_find_the_grid_of_a_gguf_file_again() -> None:
    source = np.random.default_rng(0)
    scales = source.uniform(0.001, 0.1, (24, 3, 1)).astype(np.float16).astype(np.float32)
    minimums = source.normal(size=(24, 3, 1)).astype(np.float16).astype(np.float32)
    values = source.integers(0, 16, (24, 3, 32))
    values[..., 0], values[..., 1] = 0, 15  # Q4_1 spans a block's range
    matrix = (scales * values.astype(np.float32) + minimums).reshape(24, 96)

    np.testing.assert_allclose(dequantised(affine(matrix, 32)), matrix, rtol=1e-5, atol=1e-6)


def test_a_block_of_one_value_is_that_value() -> None:
    matrix = np.full((2, 64), -0.25, np.float32)
    assert np.array_equal(dequantised(affine(matrix, 32)), matrix)


@pytest.mark.parametrize("family", ["llama", "qwen2"])  # qwen2 has biases
def test_affine_weights_on_the_grid_lose_nothing(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    put_on_the_grid(model)
    exact = fuse(convert(model, CONTEXT_LENGTH))
    expected = logits(exact, tmp_path / "exact")
    precision = Precision(algorithm="affine", symmetric=False, lm_head="fp32", accuracy_level=1)
    found = logits(quantize(exact, precision), tmp_path / "affine")
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def put_on_the_grid(model: PreTrainedModel) -> None:
    """Gives every linear layer below the output projection weights that 4 bits can hold."""
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            grid = dequantised(affine(module.weight.detach().numpy(), 32))
            module.weight.data = torch.from_numpy(grid)


def test_layers_that_read_the_same_values_share_their_sums() -> None:
    found = Counter(node.op_type for node in quantised("llama", AFFINE).graph)
    assert found["MatMulNBits"] == 5 * LAYERS + 1  # q, k and v are packed
    assert found["ReduceSum"] == 4 * LAYERS  # gate and up read the same
    assert found["MatMul"] == found["Add"] == 5 * LAYERS


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [64, 80, 96])
@pytest.mark.parametrize("algorithm", ["symmetric", "asymmetric", "k_quant"])
def test_onnx_runtime_reads_the_blocks_as_they_were_meant(
    bits: int, columns: int, algorithm: str, tmp_path: Path
) -> None:
    precision = Precision(
        weights=f"int{bits}",
        symmetric=algorithm == "symmetric",
        algorithm="k_quant" if algorithm == "k_quant" else "rtn",
        accuracy_level=1,
    )
    source = np.random.default_rng(0)
    table = source.normal(size=(20, columns)).astype(np.float32)
    weight = source.normal(size=(columns, 24)).astype(np.float32)
    save(quantize(embedding_and_linear(table, weight), precision), tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {"ids": np.arange(20)})

    def stored(matrix: np.ndarray) -> np.ndarray:
        if algorithm == "k_quant":
            return dequantised(k_quant(matrix, bits, 32))
        return dequantised(round_to_nearest(matrix, bits, 32, algorithm == "symmetric"))

    whole = columns % 32 == 0  # the embedding's kernel returns whole blocks alone
    hidden = stored(table) if whole else table
    np.testing.assert_allclose(found, hidden @ stored(weight.T).T, rtol=1e-3, atol=1e-3)


def embedding_and_linear(table: np.ndarray, weight: np.ndarray) -> ir.Model:
    """Gather(table, ids) @ weight."""
    nodes = [
        onnx.helper.make_node("Gather", ["table", "ids"], ["hidden"]),
        onnx.helper.make_node("MatMul", ["hidden", "weight"], ["result"]),
    ]
    graph = onnx.helper.make_graph(
        nodes,
        "graph",
        [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n"])],
        [onnx.helper.make_tensor_value_info("result", onnx.TensorProto.FLOAT, ["n", 24])],
        [
            onnx.numpy_helper.from_array(table, "table"),
            onnx.numpy_helper.from_array(weight, "weight"),
        ],
    )
    opset = onnx.helper.make_opsetid("", 20)
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=9))


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_int8_stays_close_to_the_model(family: str, tmp_path: Path) -> None:
    expected = last_logits(tiny_model(family), PROMPT)
    found = logits(quantised(family, Precision(weights="int8")), tmp_path)
    assert np.corrcoef(found, expected)[0, 1] > 0.99


@pytest.mark.parametrize(
    "precision",
    [
        Precision(symmetric=False),
        Precision(symmetric=False, algorithm="k_quant", lm_head="int8", mixed_layers=True),
        Precision(lm_head="fp32"),
        Precision(block_size=16, lm_head="int8"),
        AFFINE,
    ],
    ids=Precision.describe,
)
def test_each_precision_runs_and_resembles_the_model(precision: Precision, tmp_path: Path) -> None:
    expected = last_logits(tiny_model("qwen2"), PROMPT)  # has biases, and an embedding of its own
    found = logits(quantised("qwen2", precision), tmp_path)
    assert np.corrcoef(found, expected)[0, 1] > 0.6  # 4 bits are coarse for random weights


def test_every_linear_layer_and_the_embedding_are_quantised() -> None:
    found = Counter(node.op_type for node in quantised("qwen2", Precision()).graph)
    assert found["MatMulNBits"] == 5 * LAYERS + 1
    assert found["GatherBlockQuantized"] == 1
    assert found["MatMul"] == found["Gemm"] == found["Add"] == 0  # the biases are inputs


def test_fp32_quantises_nothing() -> None:
    model = fuse(convert(tiny_model("llama"), CONTEXT_LENGTH))
    before = Counter(node.op_type for node in model.graph)
    assert Counter(node.op_type for node in quantize(model, Precision("fp32")).graph) == before


def test_the_output_projection_has_bits_of_its_own() -> None:
    assert bits_of_linears(quantised("llama", Precision(lm_head="int8"))) == [4] * 15 + [8]


def test_mixed_layers_are_the_attention_input_and_the_down_projection() -> None:
    bits = bits_of_linears(quantised("llama", Precision(mixed_layers=True)))
    packed, output, gate, up, down = 8, 4, 4, 4, 8
    upgraded, plain = [packed, output, gate, up, down], [4] * 5
    # of three layers, llama.cpp's rule takes the first and the last
    assert bits == [*upgraded, *plain, *upgraded, 4]


def test_a_tied_embedding_and_output_projection_share_their_bytes(tmp_path: Path) -> None:
    save(quantised("llama", Precision(symmetric=False)), tmp_path)
    model = ir.load(tmp_path / "model.onnx")
    places = {
        name: (value.const_value.offset, value.const_value.length)  # type: ignore[union-attr]
        for name, value in model.graph.initializers.items()
        if name.startswith("model.model.embed_tokens.weight")
    }
    assert len(places) == 6
    assert len(set(places.values())) == 3
    assert all(offset % 4096 == 0 for offset, _ in places.values())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weights": "int3"}, "weights is 'int3', but must be one of 'fp32', 'int4', 'int8'"),
        ({"block_size": 48}, "block_size is 48"),
        ({"algorithm": "gptq", "symmetric": False}, "algorithm is 'gptq'"),
        ({"algorithm": "k_quant"}, "add symmetric = false"),
        ({"algorithm": "affine", "lm_head": "int8"}, "add symmetric = false"),
        ({"algorithm": "affine", "symmetric": False}, 'lm_head = "int8" or "fp32"'),
        ({"algorithm": "affine", "symmetric": False, "weights": "int8"}, "is for int4 weights"),
        ({"lm_head": "int2"}, "lm_head is 'int2'"),
        ({"accuracy_level": 3}, "accuracy_level is 3"),
        ({"weights": "fp32", "lm_head": "int8"}, "quantises nothing"),
        ({"weights": "int8", "mixed_layers": True}, 'use "int4"'),
    ],
)
def test_a_precision_that_is_none_says_what_to_change(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        Precision(**values)  # type: ignore[arg-type]


def test_a_precision_describes_itself() -> None:
    precision = Precision(symmetric=False, algorithm="k_quant", lm_head="int8", mixed_layers=True)
    assert precision.describe() == "int4 k_quant block 32, int8 lm_head, int8 mixed layers"
    assert Precision().describe() == "int4 rtn block 32 symmetric"
    assert Precision("fp32").describe() == "fp32"
