"""The library: what it shows, what it refuses, and that the weights are held once."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from handlers.artifact.graph_contract import KEY_BLOCK
from handlers.engine import session
from handlers.engine.session import KERNELS, Session, register_kernels
from handlers.errors import StartupError
from model_export.quantize.importance_search import LIBRARY
from tests.kernels.every_kernel import NAMES, alike, available
from tests.support.switchable_kernels import use_kernels

ROOT = Path(__file__).resolve().parent.parent.parent
INPUTS = ["x", "values", "scales", "offsets", "bias"]
WEIGHTS: dict[str, np.ndarray] = {
    "values": np.zeros((2, 2, 256), np.uint8),
    "scales": np.zeros((2, 2, 16), np.float16),
}
SMAPS = """
import sys
from pathlib import Path
from handlers.engine.session import Session

graph = Path(sys.argv[1])
session = Session(graph, threads=2, slots=1, capacity=64)
mapped = private = 0
counts = False
for line in Path("/proc/self/smaps").read_text().splitlines():
    if "-" in line.split()[0]:
        counts = line.endswith("model.onnx.data")
    elif counts and line.startswith("Size:"):
        mapped += int(line.split()[1])
    elif counts and line.startswith("Private_Dirty:"):
        private += int(line.split()[1])
print(mapped * 1024, private)
"""


def test_the_library_shows_onnx_runtime_its_entry_and_nothing_else() -> None:
    listed = subprocess.run(["nm", "-D", KERNELS], capture_output=True, text=True, check=True)
    defined = {line.split()[-1] for line in listed.stdout.splitlines() if " T " in line}
    assert defined == {"RegisterCustomOps"}


def test_the_kernels_and_the_graphs_agree_on_the_positions_of_a_block_of_keys() -> None:
    header = (ROOT / "kernels" / "attention.h").read_text()
    assert re.findall(r"KEY_BLOCK = (\d+),", header) == [str(KEY_BLOCK)]


@pytest.mark.parametrize("name", NAMES)
def test_the_other_tests_use_every_kernel_that_this_cpu_has(name: str) -> None:
    if name not in available():
        pytest.skip(f"this CPU has no {name}")
    assert use_kernels(name)


def test_a_kernel_that_differs_is_noticed() -> None:
    outputs = itertools.count()
    with pytest.raises(AssertionError, match="differs"):
        alike(lambda: [np.array([next(outputs)])])


def test_kernels_that_are_none_are_not_used() -> None:
    assert not use_kernels("abacus")


@pytest.mark.parametrize("library", ["missing", "not a library"])
def test_a_start_without_kernels_says_how_to_make_them(
    library: str, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "kernels.so"
    if library != "missing":
        path.write_text("text")
    monkeypatch.setattr(session, "KERNELS", path)
    with pytest.raises(StartupError, match="make kernels"):
        Session(tiny_artifact / "model.onnx", threads=1, slots=1, capacity=64)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"K": 0}, "K and N must be positive"),
        ({"N": -1}, "K and N must be positive"),
        ({"bits": 3}, "bits must be 4, 5, 6 or 8"),
        ({"bits": 7}, "bits must be 4, 5, 6 or 8"),
        ({"bits": 5}, "packed is not"),
        ({"block_size": 48}, "multiple of 32"),
        ({"N": 33}, "packed is not"),
        ({"K": 65}, "packed is not"),
        ({"block_size": 64}, "scales is not"),
    ],
)
def test_weights_of_another_shape_are_refused_when_the_graph_loads(
    changed: dict[str, int], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        load_node(WEIGHTS, changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"offsets": np.zeros((2, 1, 16), np.float16)}, "offsets is not"),
        ({"offsets": np.zeros((1, 2, 16), np.float16)}, "offsets is not"),
        ({"bias": np.zeros(31, np.float32)}, "bias is not"),
        ({"bias": np.zeros((32, 1), np.float32)}, "bias is not"),
    ],
)
def test_offsets_and_a_bias_of_another_shape_are_refused_too(
    changed: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        load_node(WEIGHTS | changed)


COMPACT: dict[str, np.ndarray] = {
    "values": np.zeros((2, 2, 256), np.uint8),
    "scales": np.zeros((2, 2, 32), np.uint8),
    "offsets": np.zeros((2, 1, 16), np.float16),
}
"""Compact scales, whose row scales are in the place of offsets."""


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scales": np.zeros((2, 2, 16), np.uint8)}, "compact scales is not"),
        ({"scales": np.zeros((2, 1, 32), np.uint8)}, "compact scales is not"),
        ({"offsets": np.zeros((2, 2, 16), np.float16)}, "row scales is not"),
        ({"offsets": np.zeros((1, 1, 16), np.float16)}, "row scales is not"),
    ],
)
def test_compact_scales_of_another_shape_are_refused(
    changed: dict[str, np.ndarray], message: str
) -> None:
    load_node(COMPACT)
    with pytest.raises(Exception, match=message):
        load_node(COMPACT | changed)


def test_compact_scales_without_those_of_the_rows_are_refused() -> None:
    del (without := {**COMPACT})["offsets"]
    with pytest.raises(Exception, match="row scales is not"):
        load_node(without)


def test_compact_scales_of_8_bits_are_refused() -> None:
    with pytest.raises(Exception, match="8 bits must have scales in float16"):
        load_node(COMPACT | {"values": np.zeros((2, 2, 512), np.uint8)}, {"bits": 8})


@pytest.mark.parametrize("bits", [5, 6])
def test_5_and_6_bits_without_offsets_are_refused(bits: int) -> None:
    weights = WEIGHTS | {"values": np.zeros((2, 2, 64 * bits), np.uint8)}
    load_node(weights | {"offsets": WEIGHTS["scales"]}, {"bits": bits})
    with pytest.raises(Exception, match="5 and 6 bits must have offsets"):
        load_node(weights, {"bits": bits})


def test_weights_that_a_request_could_change_are_refused() -> None:
    with pytest.raises(Exception, match="weights must be initialisers"):
        load_node({"values": WEIGHTS["values"]}, scales_are_input=True)


def load_node(
    constants: dict[str, np.ndarray],
    attributes: Mapping[str, int] = MappingProxyType({}),
    *,
    scales_are_input: bool = False,
) -> None:
    """A session of one node with 32 outputs and 64 inputs, but for what is said otherwise."""
    figures: dict[str, Any] = {"K": 64, "N": 32, "bits": 4, "block_size": 32, **attributes}
    given = {"x": TensorProto.FLOAT} | ({"scales": TensorProto.FLOAT16} if scales_are_input else {})
    present = {*given, *constants}
    names = [name if name in present else "" for name in INPUTS]
    node = helper.make_node("AffineMatMul", names, ["y"], domain="kindling", **figures)
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in given.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("kindling", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    options = onnxruntime.SessionOptions()
    register_kernels(options)
    onnxruntime.InferenceSession(model.SerializeToString(), options)


def test_the_node_of_these_tests_loads() -> None:
    load_node(WEIGHTS | {"offsets": WEIGHTS["scales"], "bias": np.zeros(32, np.float32)})


def test_the_weights_are_mapped_and_never_copied() -> None:
    graph = ROOT / "build" / "model" / "model.onnx"
    command = [sys.executable, "-c", SMAPS, str(graph)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    mapped, private = map(int, done.stdout.split())
    assert mapped > 0.95 * graph.with_name("model.onnx.data").stat().st_size
    assert private == 0


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_libraries_can_be_made_for_each_machine_of_the_clouds(
    machine: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "kernels", "--machine", machine, "--out", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True)
    kinds = {"x86_64": 62, "aarch64": 183}  # e_machine of an ELF header
    made = {path.relative_to(tmp_path) for path in tmp_path.rglob("*.so")}
    assert made == {LIBRARY.relative_to(ROOT), KERNELS.relative_to(ROOT)}
    for path in made:
        assert int.from_bytes((tmp_path / path).read_bytes()[18:20], "little") == kinds[machine]
