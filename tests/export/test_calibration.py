"""The inputs of linear layers are measured on the calibration text, and on nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from model_export.decoder.calibration import (
    CALIBRATION_TOKENS,
    InputSquares,
    attach,
    calibration_windows,
)
from model_export.decoder.convert import convert
from model_export.decoder.export import IMPORTANCE
from model_export.decoder.logits import record_logits
from model_export.fetch.load import fetch
from model_export.fetch.stand_ins import weight_of
from model_export.fuse import fuse
from model_export.lazy_tensors import GroupTensor
from model_export.quantize import quantize
from model_export.recipe import FolderSource, Precision
from model_export.reporting import ExportError
from model_export.trace.patches import EXPERTS_INTERFACE_EXISTS
from model_export.verify.corpus import calibration
from model_export.verify.drift import WINDOW
from model_export.weights import CalibratedWeight, Floats, importance_of
from tests.support.families import tiny
from tests.support.reports import ignore
from tests.support.skeletons import skeleton_of
from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_models import CONTEXT_LENGTH, SAVED, tiny_model
from tests.support.tiny_strategies import load_tiny, tiny_strategy
from tests.support.tiny_tokenizers import CHATML

ROOT = Path(__file__).parent.parent.parent
EVALUATION = [[3, 5, 7, 9, 11, 4, 2, 6, 8, 10, 12, 13], [4, 8, 15, 16, 23]]
CALIBRATION = [[30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41], [42, 43, 44], [45] * 12]
WHOLE = [kind for kind in ("gemma3n_text", "gemma4_text") if kind in CONFIG_MAPPING]
"""Their layers share caches, so they are computed whole, a window at a time."""
SINCE_5 = [kind for kind in ("lfm2", "qwen3_5_text") if EXPERTS_INTERFACE_EXISTS]


def linears(model: PreTrainedModel) -> dict[str, Any]:
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (torch.nn.Linear, Conv1D))
    }


def measure(
    model: PreTrainedModel, path: Path, evaluation: list[list[int]] = EVALUATION
) -> dict[str, Floats]:
    inputs = InputSquares(CALIBRATION)
    record_logits(model, evaluation, path, ignore, inputs)
    return inputs.importance()


def mean_squares(model: PreTrainedModel) -> dict[str, NDArray[np.float64]]:
    """Computes what the layers read, a window at a time and by another way."""
    read: dict[str, list[torch.Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(
            lambda _, inputs, name=name: read.setdefault(name, []).append(
                inputs[0].reshape(-1, inputs[0].shape[-1])
            )
        )
        for name, module in linears(model).items()
    ]
    with torch.no_grad():
        for window in CALIBRATION:
            model(input_ids=torch.tensor([window]))
    for hook in hooks:
        hook.remove()
    return {
        name: torch.cat(parts).double().square().mean(dim=0).numpy() for name, parts in read.items()
    }


@pytest.mark.parametrize("family", [*SAVED, *WHOLE, *SINCE_5])
def test_every_linear_layer_has_the_mean_squares_of_the_calibration_windows(
    tmp_path: Path, family: str
) -> None:
    model = tiny_model(family) if family in SAVED else tiny(family)
    expected = mean_squares(model)
    skeleton_of(model)
    found = measure(model, tmp_path / "logits")
    assert set(found) == set(expected)
    for name, importance in found.items():
        assert importance.dtype == np.float32
        np.testing.assert_allclose(importance, expected[name], rtol=0.07, err_msg=name)


@pytest.mark.parametrize("family", ["llama", "gpt2", *WHOLE])
def test_the_evaluation_text_is_never_measured(tmp_path: Path, family: str) -> None:
    model = tiny_model(family) if family in SAVED else tiny(family)
    skeleton_of(model)
    some = measure(model, tmp_path / "logits")
    others = measure(model, tmp_path / "logits", [[200, 201] * 6, [202, 7, 300]])
    assert some.keys() == others.keys()
    for name in some:
        np.testing.assert_array_equal(some[name], others[name])


@pytest.mark.parametrize("family", ["llama", "gpt2", *WHOLE])
def test_the_logits_are_those_of_the_evaluation_alone(tmp_path: Path, family: str) -> None:
    model = tiny_model(family) if family in SAVED else tiny(family)
    skeleton_of(model)
    record_logits(model, EVALUATION, tmp_path / "without", ignore)
    measure(model, tmp_path / "with")
    without, together = (np.fromfile(tmp_path / name, np.float32) for name in ("without", "with"))
    np.testing.assert_allclose(together, without, atol=1e-5)


def test_each_weight_is_still_read_once(tmp_path: Path) -> None:
    model = tiny_model("qwen3")
    skeleton = skeleton_of(model)
    measure(model, tmp_path / "logits")
    assert {weight.reads for weight in skeleton.weights.values()} == {1}


def test_a_layer_that_reads_some_tokens_alone_is_left_out(tmp_path: Path) -> None:
    """Which of them are of the calibration is unknown: an expert's, for one."""
    model = tiny_model("llama")
    name = "model.layers.1.mlp.down_proj"
    model.get_submodule(name).register_forward_pre_hook(
        lambda _, inputs: inputs[0].flatten(0, 1)[1:], prepend=True
    )
    model.get_submodule(name).register_forward_hook(
        lambda _, __, output: torch.zeros(5, 12, output.shape[-1])
    )
    found = measure(model, tmp_path / "logits")
    assert set(linears(model)) - set(found) == {name}


def test_the_bits_are_the_same_with_any_number_of_threads(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(measure(tiny_model("llama"), tmp_path / "logits"))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for name, importance in found[0].items():
            np.testing.assert_array_equal(importance, other[name])


PRODUCTS = """
from model_export.pipeline import _prepare_torch
_prepare_torch(1)
import torch
torch.manual_seed(0)
for tokens, outputs, inputs in ((3840, 64, 2048), (256, 640, 2048), (64, 512, 8192)):
    x, weight = torch.randn(tokens, inputs), torch.randn(outputs, inputs)
    products = []
    for threads in (1, 2, 3, 4, 8):
        torch.set_num_threads(threads)
        products.append(torch.nn.functional.linear(x, weight))
    assert all(torch.equal(products[0], other) for other in products), (tokens, outputs, inputs)
"""


def test_an_export_multiplies_to_the_same_bits_with_any_number_of_threads() -> None:
    """MKL cuts products of few outputs along their inputs, by its threads, unless it is told."""
    ended = subprocess.run(
        [sys.executable, "-c", PRODUCTS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def calibrated(model: PreTrainedModel, directory: Path) -> dict[str, Floats]:
    """Measures the model and gives its weights what was found."""
    inputs = InputSquares(CALIBRATION)
    record_logits(model, EVALUATION, directory / "logits", ignore, inputs)
    inputs.save(directory / IMPORTANCE)
    attach(model, directory / IMPORTANCE)
    return load_file(directory / IMPORTANCE)


def products_of(graph: ir.Model) -> list[ir.Node]:
    return [node for node in graph.graph if node.op_type == "AffineMatMul"]


def matrix_of(node: ir.Node) -> Any:
    value = node.inputs[1]
    assert value is not None
    assert isinstance(value.const_value, GroupTensor)
    return value.const_value.group.weight


def rows_of(module: Any) -> Floats:
    weight = weight_of(module.weight)
    assert isinstance(weight, CalibratedWeight)
    return weight.read().T if isinstance(module, Conv1D) else weight.read()


@pytest.mark.parametrize(
    ("family", "in_memory"),
    [
        *((family, False) for family in ("gemma3", "gpt2", "llama", "phi3", "qwen3", *SINCE_5)),
        ("llama", True),
        ("gemma3n_text", True),
    ],
)
def test_every_matrix_of_the_graph_has_the_importance_of_its_own_inputs(
    tmp_path: Path, family: str, in_memory: bool
) -> None:
    """Each row of a matrix is a row of a layer with this importance, however they are stacked."""
    model = tiny_model(family) if family in SAVED else tiny(family)
    if not in_memory:
        skeleton_of(model)
    importances = calibrated(model, tmp_path)
    modules = linears(model)
    graph = quantize(fuse(convert(model, 128)), Precision("int4"))
    seen: set[str] = set()
    assert products_of(graph)
    for node in products_of(graph):
        matrix = matrix_of(node)
        importance = importance_of(matrix)
        assert importance is not None, node.name
        assert len(importance) == matrix.shape[1] == node.attributes["K"].value
        readers = [n for n, each in importances.items() if np.array_equal(each, importance)]
        known = {row.tobytes() for name in readers for row in rows_of(modules[name])}
        assert {row.tobytes() for row in matrix.read()} <= known, node.name
        seen.update(readers)
    assert seen == set(importances)


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3"])
def test_an_input_that_is_never_excited_has_no_importance_at_its_place(
    tmp_path: Path, family: str
) -> None:
    model = tiny_model(family)
    norm = model.get_submodule(
        "transformer.h.1.ln_1" if family == "gpt2" else "model.layers.1.input_layernorm"
    )
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter[[5, 40]] = 0
    skeleton_of(model)
    calibrated(model, tmp_path)
    graph = quantize(fuse(convert(model, CONTEXT_LENGTH)), Precision("int4"))
    silent = [np.flatnonzero(importance_of(matrix_of(node)) == 0) for node in products_of(graph)]
    found = [places.tolist() for places in silent if len(places)]
    assert len(found) == (3 if family == "qwen3" else 1)  # query, key and value may be one matrix
    assert all(places == [5, 40] for places in found)


def test_a_tied_matrix_has_the_importance_of_what_the_output_projection_reads(
    tmp_path: Path,
) -> None:
    model = tiny_model("llama")
    expected = mean_squares(model)["lm_head"]
    skeleton_of(model)
    calibrated(model, tmp_path)
    graph = quantize(fuse(convert(model, CONTEXT_LENGTH)), Precision("int4"))
    (gather,) = (node for node in graph.graph if node.op_type == "AffineGather")
    assert gather.inputs[1] is products_of(graph)[-1].inputs[1]
    importance = importance_of(matrix_of(gather))
    assert importance is not None
    np.testing.assert_allclose(importance, expected, rtol=0.07)


def test_an_export_that_goes_on_has_the_importance_that_was_measured(tmp_path: Path) -> None:
    source = tmp_path / "source"
    lines: list[str] = []
    tiny_strategy(load_tiny(source)).reference(tmp_path, lines.append)
    assert "calibration: 2,048 tokens of the shipped text" in lines
    later = tiny_strategy(load_tiny(source))
    later.calibrate(tmp_path)
    graph = quantize(later.convert(), Precision("int4"))
    assert all(importance_of(matrix_of(node)) is not None for node in products_of(graph))


@pytest.mark.parametrize(
    "precision",
    [Precision("int8"), Precision("fp32"), Precision("int4", algorithm="k_quant")],
    ids=Precision.describe,
)
def test_where_no_weight_asks_for_it_nothing_is_measured(
    tmp_path: Path, precision: Precision
) -> None:
    strategy = tiny_strategy(load_tiny(tmp_path / "source"))
    recipe = msgspec.structs.replace(strategy.recipe, precision=precision)
    lines: list[str] = []
    uncalibrated = type(strategy)(recipe, strategy.loaded)
    uncalibrated.reference(tmp_path, lines.append)
    uncalibrated.calibrate(tmp_path)
    assert not (tmp_path / IMPORTANCE).exists()
    assert not [line for line in lines if line.startswith("calibration")]


def test_the_windows_are_chosen_evenly_over_all_of_the_text(tmp_path: Path) -> None:
    loaded = load_tiny(tmp_path / "source")
    text = " ".join(f"Word {number}." for number in range(4000))
    windows = calibration_windows(loaded, CONTEXT_LENGTH, text)
    assert [len(window) for window in windows] == [WINDOW] * (CALIBRATION_TOKENS // WINDOW)
    told = [loaded.tokenizer.decode(window) for window in windows]
    assert told[0].startswith("Word 0.")
    assert "Word 35" in told[-1]


def test_a_short_text_is_read_whole(tmp_path: Path) -> None:
    loaded = load_tiny(tmp_path / "source")
    windows = calibration_windows(loaded, CONTEXT_LENGTH, "A word or two. " * 80)
    assert "".join(loaded.tokenizer.decode(window) for window in windows) == "A word or two. " * 80


@pytest.mark.parametrize("text", ["\n", "a"])
def test_a_text_of_hardly_a_token_is_refused(tmp_path: Path, text: str) -> None:
    loaded = load_tiny(tmp_path / "source")
    with pytest.raises(ExportError, match=r"\[calibration\] has fewer than two tokens"):
        calibration_windows(loaded, CONTEXT_LENGTH, text)


def test_chats_are_read_as_the_models_template_writes_them(tmp_path: Path) -> None:
    reads = text_of(tmp_path, CHATML)
    chat = calibration().chats[0].messages
    assert f"<|im_start|>{chat[0]['role']}\n{chat[0]['content']}<|im_end|>" in reads
    assert calibration().texts[0] in reads


def test_a_model_without_a_template_reads_the_chats_as_plain_text(tmp_path: Path) -> None:
    reads = text_of(tmp_path, None)
    assert calibration().chats[0].messages[0]["content"] in reads
    assert "<|im_start|>" not in reads


def test_a_chat_that_the_template_refuses_is_left_out(tmp_path: Path) -> None:
    refusing = "{{ raise_exception('no') if messages[0].role == 'system' }}" + CHATML
    reads = text_of(tmp_path, refusing)
    firsts = [chat.messages[0] for chat in calibration().chats]
    assert {message["role"] for message in firsts} == {"system", "user"}
    for message in firsts:
        assert (message["content"] in reads) == (message["role"] == "user")


def test_a_template_that_writes_the_date_writes_the_same_on_any_day(tmp_path: Path) -> None:
    dated = "Today: {{ strftime_now('%d %b %Y') if strftime_now is defined }}" + CHATML
    assert text_of(tmp_path, dated).count("Today: 01 Jan 2026") == len(calibration().chats)


def text_of(directory: Path, template: str | None) -> str:
    """All that a model with this template would be calibrated on."""
    save_tiny_folder(directory / "source", chat_template=template)
    loaded = fetch(FolderSource(path=directory / "source"), ignore)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model_export.decoder.calibration.CALIBRATION_TOKENS", 1 << 20)
        windows = calibration_windows(loaded, CONTEXT_LENGTH, None)
    return "".join(loaded.tokenizer.decode(window) for window in windows)
