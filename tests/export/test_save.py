"""A saved graph is what its tensors hold, written once for each, however often it is killed."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from model_export.reporting import ExportError
from model_export.save import save
from tests.support.import_graph import ROOT
from tests.support.seeded_graph import MATRICES, PARTS_OF_ONE, SHAPE, seeded_graph


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


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The seeded graph, saved by one thread."""
    directory = tmp_path_factory.mktemp("whole")
    save(seeded_graph(), directory)
    return directory


def content(directory: Path) -> bytes:
    return (directory / "model.onnx.data").read_bytes()


def test_what_is_computed_part_by_part_is_what_the_tensors_hold(whole: Path) -> None:
    model, saved = seeded_graph(), ir.load(whole / "model.onnx")
    for name, value in model.graph.initializers.items():
        found = saved.graph.initializers[name].const_value
        assert found is not None
        assert value.const_value is not None
        np.testing.assert_array_equal(found.numpy(), value.const_value.numpy(), err_msg=name)


@pytest.mark.parametrize("threads", [2, 5])
def test_any_number_of_threads_gives_the_same_bytes(
    threads: int, whole: Path, tmp_path: Path
) -> None:
    save(seeded_graph(), tmp_path, threads=threads)
    assert content(tmp_path) == content(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    assert (tmp_path / "model.onnx").read_bytes() == (whole / "model.onnx").read_bytes()


@pytest.fixture(scope="module")
def left_over(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns what a save leaves that is killed when five parts are written."""
    directory = tmp_path_factory.mktemp("killed")
    command = [sys.executable, "-m", "tests.support.seeded_graph", str(directory), "5"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "hangs\n"
        wait_for_lines(directory / "model.onnx.data.journal", 1 + 5)
        process.kill()
    assert not (directory / "model.onnx").exists()
    return directory


@pytest.fixture
def killed(left_over: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(left_over, tmp_path, dirs_exist_ok=True)
    return tmp_path


def wait_for_lines(path: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while path.read_text().count("\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def reads_of_a_second_save(directory: Path, journal: Path | None = None) -> int:
    """How many parts it computes."""
    reads: list[None] = []
    save(seeded_graph(lambda: reads.append(None)), directory, threads=2, journal=journal)
    return len(reads)


PARTS = (MATRICES - 1) * PARTS_OF_ONE + 1  # a transposed matrix is one part


def test_a_save_that_was_killed_goes_on_where_it_was(killed: Path, whole: Path) -> None:
    assert reads_of_a_second_save(killed) == PARTS - 5
    assert content(killed) == content(whole)
    assert not (killed / "model.onnx.data.journal").exists()


def test_a_journal_elsewhere_stays_and_a_later_save_finds_all_of_it_whole(
    tmp_path: Path, whole: Path
) -> None:
    journal, directory = tmp_path / "journal", tmp_path / "artefact"
    save(seeded_graph(), directory, threads=2, journal=journal)
    assert content(directory) == content(whole)
    assert reads_of_a_second_save(directory, journal) == 0
    assert content(directory) == content(whole)
    assert len(list(directory.iterdir())) == 2


def tear_last_line(directory: Path) -> None:
    path = directory / "model.onnx.data.journal"
    path.write_bytes(path.read_bytes()[:-4])


def cut_data(directory: Path) -> None:
    os.truncate(directory / "model.onnx.data", SHAPE[0] * SHAPE[1] // 4)


def flip_a_byte(directory: Path) -> None:
    with (directory / "model.onnx.data").open("r+b") as file:
        file.seek(70_000)
        byte = file.read(1)[0]
        file.seek(70_000)
        file.write(bytes([byte ^ 4]))


def write_into_a_gap(directory: Path) -> None:
    sizes = [value.const_value.nbytes for value in seeded_graph().graph.initializers.values()]  # type: ignore[union-attr]
    end = sum(sizes[:2])  # the first is whole pages
    assert sizes[0] % 4096 == 0
    assert end % 4096
    with (directory / "model.onnx.data").open("r+b") as file:
        file.seek(end)
        file.write(b"x")


def delete_data(directory: Path) -> None:
    (directory / "model.onnx.data").unlink()


def use_another_layout(directory: Path) -> None:
    path = directory / "model.onnx.data.journal"
    _, *lines = path.read_text().split("\n")
    path.write_text("\n".join(["0" * 64, *lines]))


def write_nonsense(directory: Path) -> None:
    path = directory / "model.onnx.data.journal"
    lines = path.read_text().split("\n")
    path.write_bytes("\n".join([lines[0], "\0\0\0", "x", *lines[1:], "99999 00000000"]).encode())


@pytest.mark.parametrize(
    ("damage", "computed_anew"),
    [
        (tear_last_line, 1),
        (flip_a_byte, 1),
        (write_into_a_gap, 0),
        (write_nonsense, 0),
        (use_another_layout, 5),
        (delete_data, 5),
        (cut_data, 5),
    ],
)
def test_what_is_damaged_is_computed_anew(
    damage: Callable[[Path], None], computed_anew: int, killed: Path, whole: Path
) -> None:
    damage(killed)
    assert reads_of_a_second_save(killed) == PARTS - 5 + computed_anew
    assert content(killed) == content(whole)


def test_a_weight_that_cannot_be_read_ends_the_save_and_leaves_what_was_written(
    tmp_path: Path, whole: Path
) -> None:
    count = itertools.count()

    def fail() -> None:
        if next(count) == 4:
            raise ExportError("the file is cut off")

    with pytest.raises(ExportError, match="cut off"):
        save(seeded_graph(fail), tmp_path, threads=1)
    assert reads_of_a_second_save(tmp_path) < PARTS
    assert content(tmp_path) == content(whole)


def test_a_small_model_reports_nothing(tmp_path: Path) -> None:
    lines: list[str] = []
    save(seeded_graph(), tmp_path, report=lines.append)
    assert not lines
