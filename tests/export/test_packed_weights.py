"""AWQ and GPTQ checkpoints come in with the blocks that they are stored as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from safetensors.torch import load_file, save_file

from model_export.decoder.calibration import InputSquares, attach
from model_export.decoder.convert import convert
from model_export.decoder.logits import record_logits
from model_export.fetch.load import LoadedModel, fetch
from model_export.fetch.locate import locate
from model_export.fetch.stand_ins import real_weights, weight_of
from model_export.fuse import fuse
from model_export.grouped_weights import GroupedWeight
from model_export.pipeline import export
from model_export.quantize import quantize
from model_export.quantize.block_layout import Packed, pack
from model_export.quantize.block_quantizer import Blocks, affine
from model_export.recipe import FolderSource, Precision
from model_export.recipe_loader import load_decoder_recipe
from model_export.reporting import ExportError
from model_export.sizing.dry_run import fetch_config
from model_export.weights import CalibratedWeight
from tests.export.test_pipeline import assert_served, write_recipe
from tests.support.packed_folder import AWQ, GPTQ, GPTQ_V2, LAYERS, Matrix, save_packed_folder
from tests.support.reports import ignore
from tests.support.tiny_models import CONTEXT_LENGTH


def load_packed(
    directory: Path, settings: dict[str, Any], group_size: int
) -> tuple[dict[str, Matrix], LoadedModel]:
    matrices = save_packed_folder(directory, settings, group_size)
    return matrices, fetch(FolderSource(path=directory), ignore)


@pytest.mark.parametrize(
    ("settings", "group_size"), [(AWQ, 32), (GPTQ, 64), (GPTQ_V2, 32), (AWQ, -1)]
)
def test_a_packed_layer_has_the_weights_that_it_was_made_of(
    tmp_path: Path, settings: dict[str, Any], group_size: int
) -> None:
    matrices, loaded = load_packed(tmp_path / "packed", settings, group_size)
    for name, matrix in matrices.items():
        weight = weight_of(loaded.model.get_parameter(name))
        assert isinstance(weight, GroupedWeight)
        assert np.array_equal(weight.read(), matrix.exact().astype(np.float32))
        for start, stop in ((0, 1), (3, 21), (8, 16), (5, 5)):
            values, scales, zeros = weight.rows(start, stop)
            assert np.array_equal(values, matrix.values[start:stop])
            assert np.array_equal(scales, matrix.scales[start:stop])
            assert np.array_equal(zeros, matrix.zeros[start:stop])
    with real_weights(loaded.model), torch.no_grad():
        assert torch.isfinite(loaded.model(torch.tensor([[1, 2, 3]])).logits).all()


def as_blocks(parts: list[Matrix], block_size: int) -> Blocks:
    """The blocks that hold the matrices, one above the other."""
    repeats = parts[0].group_size // block_size
    scales = np.concatenate([part.scales for part in parts])
    zeros = np.concatenate([part.zeros for part in parts])
    offsets = (-scales.astype(np.float32) * zeros).astype(np.float16)
    return Blocks(
        np.concatenate([part.values for part in parts]),
        np.repeat(scales, repeats, axis=1),
        np.repeat(offsets, repeats, axis=1),
        4,
        block_size,
    )


def layers_of(graph: ir.Model) -> list[ir.Node]:
    return [node for node in graph.graph if node.op_type == "AffineMatMul"][:-1]


def stored(node: ir.Node) -> list[np.ndarray]:
    values = [value for value in node.inputs[1:4] if value is not None]
    return [value.const_value.numpy() for value in values if value.const_value is not None]


def same(found: list[np.ndarray], wanted: Packed) -> bool:
    expected = [tensor for tensor in wanted if tensor is not None]
    pairs = zip(found, expected, strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


def in_order(matrices: dict[str, Matrix]) -> list[list[Matrix]]:
    """The matrices of each linear layer of the graph: query, key and value are one."""
    found = []
    for layer in range(LAYERS):
        of_layer = {
            name.split(".")[-2]: matrix
            for name, matrix in matrices.items()
            if f"layers.{layer}." in name
        }
        found.append([of_layer[f"{part}_proj"] for part in "qkv"])
        found += [[of_layer[f"{part}_proj"]] for part in ("o", "gate", "up", "down")]
    return found


@pytest.mark.parametrize(("settings", "group_size"), [(AWQ, 32), (GPTQ, 64)])
def test_the_graph_holds_the_blocks_of_the_checkpoint(
    tmp_path: Path, settings: dict[str, Any], group_size: int
) -> None:
    matrices, loaded = load_packed(tmp_path / "packed", settings, group_size)
    graph = quantize(fuse(convert(loaded.model, CONTEXT_LENGTH)), Precision("int4"))
    assert_taken_over(graph, matrices)


def test_weights_whose_inputs_were_measured_keep_their_blocks(tmp_path: Path) -> None:
    matrices, loaded = load_packed(tmp_path / "packed", AWQ, 32)
    inputs = InputSquares([[3, 4, 5, 6]])
    record_logits(loaded.model, [[1, 2, 3]], tmp_path / "logits", ignore, inputs)
    inputs.save(tmp_path / "importance")
    attach(loaded.model, tmp_path / "importance")
    assert all(
        isinstance(weight_of(loaded.model.get_parameter(name)), CalibratedWeight)
        for name in matrices
    )
    graph = quantize(fuse(convert(loaded.model, CONTEXT_LENGTH)), Precision("int4"))
    assert_taken_over(graph, matrices)


def assert_taken_over(graph: ir.Model, matrices: dict[str, Matrix]) -> None:
    nodes = layers_of(graph)
    expected = [pack(as_blocks(parts, 32)) for parts in in_order(matrices)]
    assert len(nodes) == len(expected)
    for node, wanted in zip(nodes, expected, strict=True):
        assert same(stored(node), wanted)


@pytest.mark.parametrize(
    ("precision", "bits"),
    [(Precision("int4", algorithm="symmetric"), 4), (Precision(weights="int8"), 8)],
)
def test_another_precision_quantises_the_weights_again(
    tmp_path: Path, precision: Precision, bits: int
) -> None:
    _, loaded = load_packed(tmp_path / "packed", AWQ, 32)
    graph = quantize(fuse(convert(loaded.model, CONTEXT_LENGTH)), precision)
    assert {node.attributes["bits"].value for node in layers_of(graph)} == {bits}
    assert all(len(stored(node)) == 2 for node in layers_of(graph))


def test_blocks_that_do_not_divide_a_group_are_quantised_anew(tmp_path: Path) -> None:
    matrices, loaded = load_packed(tmp_path / "packed", GPTQ, 32)
    graph = quantize(fuse(convert(loaded.model, CONTEXT_LENGTH)), Precision("int4", block_size=64))
    down = matrices["model.layers.0.mlp.down_proj.weight"]
    wanted = pack(affine(down.exact().astype(np.float32), 64))
    assert any(same(stored(node), wanted) for node in layers_of(graph))


@pytest.mark.parametrize("settings", [AWQ, GPTQ])
def test_a_packed_model_goes_through_every_gate(tmp_path: Path, settings: dict[str, Any]) -> None:
    save_packed_folder(tmp_path / "source", settings, 32)
    recipe_file = write_recipe(tmp_path, 'path = "source"')
    recipe_file.write_text(recipe_file.read_text().replace('"int8"', '"int4"'))
    recipe = load_decoder_recipe(str(recipe_file))
    export(recipe, tmp_path / "out", ignore)
    assert assert_served(tmp_path / "out").precision == "int4 affine block 32"
    assert fetch_config(recipe.source, ignore).model_type == "llama"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (GPTQ | {"bits": 8}, "GPTQ.*has 8 bits"),
        (GPTQ | {"group_size": 16}, "its group_size is 16"),
        (GPTQ | {"group_size": 0}, "its group_size is 0"),
        (GPTQ | {"group_size": -2}, "its group_size is -2"),
        (GPTQ | {"desc_act": True}, "act-order"),
        (GPTQ | {"checkpoint_format": "marlin"}, "checkpoint_format is marlin"),
        (GPTQ | {"dynamic": {"-:lm_head": {}}}, "different ways"),
        (AWQ | {"version": "gemv"}, "AWQ.*version is gemv"),
        (AWQ | {"zero_point": False}, "no zero_point"),
        (AWQ | {"bits": 3}, "has 3 bits"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_by_name(
    tmp_path: Path, settings: dict[str, Any], said: str
) -> None:
    save_packed_folder(tmp_path / "packed", AWQ, 32)
    config = json.loads((tmp_path / "packed" / "config.json").read_text())
    config["quantization_config"] = {"group_size": 32, **settings}
    (tmp_path / "packed" / "config.json").write_text(json.dumps(config))
    for ask in (locate, fetch_config):
        with pytest.raises(ExportError, match=rf"already quantised .*{said}.* 4 bits in groups"):
            ask(FolderSource(path=tmp_path / "packed"), ignore)


@pytest.mark.parametrize(
    ("part", "changed", "said"),
    [
        ("g_idx", torch.arange(191, -1, -1, dtype=torch.int32) // 32, "in another order"),
        ("scales", torch.ones(1, 8, dtype=torch.float16), "do not belong together"),
        ("qzeros", None, "no qzeros beside it"),
    ],
)
def test_layers_that_contradict_the_configuration_are_named(
    tmp_path: Path, part: str, changed: torch.Tensor | None, said: str
) -> None:
    save_packed_folder(tmp_path / "packed", GPTQ, 32)
    path = tmp_path / "packed" / "model.safetensors"
    tensors = load_file(path)
    name = f"model.layers.1.mlp.up_proj.{part}"
    if changed is None:
        del tensors[name]
    else:
        tensors[name] = changed
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(ExportError, match=rf"^folder:packed: .*model\.layers\.1.*{said}"):
        fetch(FolderSource(path=tmp_path / "packed"), ignore)
