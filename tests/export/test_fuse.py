"""The passes: the same answers from fewer nodes, and nothing where there is nothing to do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from model_export.decoder.convert import convert
from model_export.fuse import DECODER_PASSES, fuse
from model_export.fuse.cleanup import clean
from model_export.fuse.norms import fuse_norms
from model_export.fuse.rotary import fuse_rotary
from model_export.fuse.shapes import make_shapes_static
from model_export.fuse.skip_norms import fuse_skip_norms
from model_export.save import save
from tests.support.graph_runner import GraphRunner
from tests.support.reference import last_logits
from tests.support.tiny_models import CONTEXT_LENGTH, FAMILIES, tiny_model
from tests.support.traced import fused, traced

PROMPT = [5, 99, 310, 7, 42, 8, 500, 11, 12, 13, 77, 200, 201, 202, 203, 17]
LAYERS = 3


def counts(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


def logits(model: ir.Model, directory: Path) -> np.ndarray:
    save(model, directory)
    row: np.ndarray = GraphRunner(directory / "model.onnx", 1, CONTEXT_LENGTH).step([PROMPT])[0]
    return row


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_pass_keeps_the_logits(family: str, tmp_path: Path) -> None:
    expected = last_logits(tiny_model(family), PROMPT)
    model = traced(family)
    for number, fusion in enumerate(DECODER_PASSES):
        fusion(model)
        found = logits(model, tmp_path / str(number))
        np.testing.assert_allclose(found, expected, atol=2e-3, rtol=1e-3, err_msg=fusion.__name__)


def test_a_second_run_finds_nothing_left_to_do(family: str) -> None:
    *passes, _ = DECODER_PASSES  # ONNX Runtime's inference takes our Attention for another
    model = fuse(traced(family), passes)
    before = counts(model)
    assert counts(fuse(model, passes)) == before


def test_a_layer_of_a_llama_is_eleven_nodes() -> None:
    found = counts(fused("llama"))
    assert found == {
        "Gather": 2,
        "SimplifiedLayerNormalization": 1,
        "MatMul": 5 * LAYERS,
        "Attention": LAYERS,
        "SkipSimplifiedLayerNormalization": 2 * LAYERS,
        "Sigmoid": LAYERS,
        "Mul": 2 * LAYERS,
        "Reshape": 1,
        "Gemm": 1,
    }


def test_shapes_are_computed_nowhere(family: str) -> None:
    model = fused(family)
    positions = 1 if family == "gpt2" else 0
    assert counts(model)["Shape"] == positions
    assert counts(model)["Expand"] == 0


def test_rotary_tables_have_a_row_for_each_position() -> None:
    model = fused("gemma3")
    nodes = [node for node in model.graph if node.op_type == "Attention"]
    tables = [node.inputs[7] for node in nodes]
    shapes = {table.name: table.shape for table in tables if table is not None}
    assert list(shapes.values()) == [(CONTEXT_LENGTH, 16), (CONTEXT_LENGTH, 16)]
    assert tables[0] is tables[2]  # the two local layers, the global between


def test_a_layer_without_positions_keeps_none() -> None:
    model = fused("smollm3")
    nodes = [node for node in model.graph if node.op_type == "Attention"]
    assert [len(node.inputs) > 7 for node in nodes] == [True, False, True]


def test_a_rotation_that_the_kernel_cannot_do_stays_in_the_graph(tmp_path: Path) -> None:
    model = tiny_model("phi3-odd")
    exported = fuse(convert(model, CONTEXT_LENGTH))
    assert counts(exported)["Cos"] == 1
    found = logits(exported, tmp_path)
    np.testing.assert_allclose(found, last_logits(model, PROMPT), atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3", "gpt2"])
def test_attention_reads_one_packed_tensor(family: str) -> None:
    model = fused(family)
    nodes = [node for node in model.graph if node.op_type == "Attention"]
    assert all(node.inputs[1] is None and node.inputs[2] is None for node in nodes)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
def test_a_tied_embedding_is_stored_once(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    save(fuse(convert(model, CONTEXT_LENGTH)), tmp_path)
    unique = sum(parameter.nbytes for parameter in model.parameters())
    written = (tmp_path / "model.onnx.data").stat().st_size
    assert written < unique + 64 * 4096 + 2 * CONTEXT_LENGTH * 32 * 4


@pytest.mark.parametrize("fusion", [fuse_norms, fuse_rotary, fuse_skip_norms])
def test_a_pass_without_its_pattern_changes_nothing(fusion: object) -> None:
    model = traced("gpt2")
    clean(model)
    make_shapes_static(model)
    clean(model)
    before = counts(model)
    fusion(model)  # type: ignore[operator]
    gained = {"SkipLayerNormalization"} if fusion is fuse_skip_norms else set()
    assert set(counts(model)) - set(before) == gained


def parsed(text: str, **constants: np.ndarray) -> ir.Model:
    """A model of a few nodes, in ONNX's textual form, with its constants as initialisers."""
    model = ir.from_onnx_text(text)
    for name, array in constants.items():
        value = next(value for value in model.graph.inputs if value.name == name)
        model.graph.inputs.remove(value)
        value.const_value = ir.tensor(array, name=name)
        model.graph.initializers.add(value)
    return model


@pytest.mark.parametrize(("step", "kept"), [(1, 0), (-1, 1)])
def test_a_slice_of_the_whole_is_dropped_but_not_one_that_turns_it_round(
    step: int, kept: int
) -> None:
    model = parsed(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[2, 4] x, int64[1] start, int64[1] end, int64[1] axis, int64[1] step)
            => (float[2, 4] y) { cut = Slice(x, start, end, axis, step)  y = Neg(cut) }""",
        start=np.array([0 if step == 1 else -1]),
        end=np.array([4 if step == 1 else -5]),
        axis=np.array([1]),
        step=np.array([step]),
    )
    make_shapes_static(model)
    assert counts(model)["Slice"] == kept


def test_a_weight_too_large_to_fold_loses_its_axis_of_one() -> None:
    """A short convolution's, of Qwen3.5-0.8B's size: 1.5 times the 2**14 elements that fold."""
    weight = np.arange(6144 * 4, dtype=np.float32).reshape(6144, 1, 4)
    model = parsed(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[6144, 4] x, float[6144, 1, 4] weight, int64[1] axis) => (float[6144, 4] y) {
            view = Squeeze(weight, axis)
            y = Mul(x, view)
        }""",
        weight=weight,
        axis=np.array([1]),
    )
    clean(model)
    assert counts(model) == {"Mul": 1}
    (kept,) = model.graph.initializers.values()
    assert kept.const_value is not None
    np.testing.assert_array_equal(kept.const_value.numpy(), weight[:, 0])


@pytest.mark.parametrize(("numerator", "norms"), [(1.0, 1), (2.0, 0)])
def test_a_norm_is_fused_where_the_root_divides_one_and_nothing_else(
    numerator: float, norms: int
) -> None:
    model = parsed(
        """<ir_version: 10, opset_import: ["" : 20]>
        g (float[2, 4] x, float two, int64[1] axis, float epsilon, float numerator,
           float[4] weight) => (float[2, 4] y) {
            square = Pow(x, two)
            mean = ReduceMean<keepdims = 1>(square, axis)
            sum = Add(mean, epsilon)
            root = Sqrt(sum)
            inverse = Div(numerator, root)
            normal = Mul(x, inverse)
            y = Mul(normal, weight)
        }""",
        two=np.array(2, np.float32),
        axis=np.array([-1]),
        epsilon=np.array(1e-6, np.float32),
        numerator=np.array(numerator, np.float32),
        weight=np.ones(4, np.float32),
    )
    fuse_norms(model)
    assert counts(model)["SimplifiedLayerNormalization"] == norms
