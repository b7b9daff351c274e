"""The tensors of a model's files come by name, in any range of rows, and spoilt files are named."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from model_export.fetch.checkpoint import open_checkpoint
from model_export.reporting import ExportError

TYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
VALUES = torch.linspace(-3, 3, 35).reshape(7, 5)


def write_file(path: Path, head: dict[str, Any] | str, data: bytes = b"") -> Path:
    """A safetensors file of this head, whatever it says."""
    text = (head if isinstance(head, str) else json.dumps(head)).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("pickled", [False, True])
def test_rows_are_read_as_float32(tmp_path: Path, dtype: torch.dtype, pickled: bool) -> None:
    stored = {"w": VALUES.to(dtype), "scale": torch.tensor(2.5, dtype=dtype)}
    if pickled:
        torch.save(stored, tmp_path / "pytorch_model.bin")
    else:
        save_file(stored, tmp_path / "model.safetensors")
    found = open_checkpoint(tmp_path)
    expected = stored["w"].float().numpy()
    assert found["w"].is_float
    assert found["w"].shape == (7, 5)
    for start, stop in ((0, None), (2, 5), (6, 99), (3, 3)):
        rows = found["w"].read(start, stop)
        assert rows.dtype == np.float32
        assert np.array_equal(rows, expected[start:stop])
    assert found["scale"].shape == ()
    assert float(found["scale"].read()) == 2.5


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
@pytest.mark.parametrize("pickled", [False, True])
def test_integers_keep_their_type(tmp_path: Path, dtype: torch.dtype, pickled: bool) -> None:
    stored = {"position_ids": torch.arange(6).reshape(3, 2).to(dtype)}
    if pickled:
        torch.save(stored, tmp_path / "pytorch_model.bin")
    else:
        save_file(stored, tmp_path / "model.safetensors")
    (tensor,) = open_checkpoint(tmp_path).values()
    assert not tensor.is_float
    assert torch.equal(torch.from_numpy(tensor.stored(1, 3)), stored["position_ids"][1:3])


@pytest.mark.parametrize("indexed", [True, False])
def test_a_sharded_model_has_the_tensors_of_all_files(tmp_path: Path, indexed: bool) -> None:
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        save_file({f"w{number}": VALUES + number}, tmp_path / name)
    if indexed:
        save_file({"w0": VALUES}, tmp_path / "other.safetensors")
        index = {"metadata": {}, "weight_map": dict(zip(("w0", "w1"), names, strict=True))}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    found = open_checkpoint(tmp_path)
    assert sorted(found) == ["w0", "w1"]
    assert np.array_equal(found["w1"].read(), VALUES.numpy() + 1)


def test_one_whole_file_comes_before_others(tmp_path: Path) -> None:
    save_file({"w": VALUES}, tmp_path / "model.safetensors")
    save_file({"of_another_format": VALUES}, tmp_path / "consolidated.safetensors")
    torch.save({"pickled": VALUES}, tmp_path / "pytorch_model.bin")
    assert list(open_checkpoint(tmp_path)) == ["w"]


def test_pickled_shards_are_found_by_their_index(tmp_path: Path) -> None:
    torch.save({"w": VALUES}, tmp_path / "pytorch_model-00001-of-00001.bin")
    torch.save({"not": "a weight"}, tmp_path / "training_args.bin")
    index = {"weight_map": {"w": "pytorch_model-00001-of-00001.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    assert list(open_checkpoint(tmp_path)) == ["w"]


def test_a_file_of_torch_before_its_archives_is_read(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"w": VALUES}, path, _use_new_zipfile_serialization=False)
    assert np.array_equal(open_checkpoint(tmp_path)["w"].read(1, 3), VALUES[1:3])


@pytest.mark.parametrize("name", ["missing-1.safetensors", "../elsewhere.safetensors"])
def test_an_index_names_what_the_folder_has(tmp_path: Path, name: str) -> None:
    save_file({"w": VALUES}, tmp_path / "here.safetensors")
    save_file({"w": VALUES}, tmp_path.parent / "elsewhere.safetensors")
    index = {"weight_map": {"w": name}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ExportError, match="which the folder does not have"):
        open_checkpoint(tmp_path)


ENTRY = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "does not begin with the size of a head"),
        (b"\x10\x00", "does not begin with the size of a head"),
        (b"\xff" * 64, "does not begin with the size of a head"),
        (struct.pack("<Q", 5000) + b"{}", "is cut short"),
        ("{", "its head cannot be read"),
        ("[]", "its head cannot be read"),
        ('{"w": 1}', "its head cannot be read"),
        ({"w": ENTRY | {"dtype": "F12"}}, "holds w as F12"),
        ({"w": ENTRY | {"data_offsets": [0, 12]}}, "contradicts itself on w"),
        ({"w": ENTRY | {"data_offsets": [-16, 0]}}, "contradicts itself on w"),
        ({"w": ENTRY | {"shape": [-2, -2]}}, "contradicts itself on w"),
        ({"w": ENTRY | {"data_offsets": [16, 32]}}, "is cut short"),
    ],
)
def test_a_spoilt_file_is_named_with_the_reason(
    tmp_path: Path, content: dict[str, Any] | str | bytes, said: str
) -> None:
    path = tmp_path / "model.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        write_file(path, content, bytes(16))
    with pytest.raises(ExportError, match=rf"^model\.safetensors .*{said}"):
        open_checkpoint(tmp_path)


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    path = write_file(tmp_path / "model.safetensors", {"w": ENTRY}, bytes(16))
    weight = open_checkpoint(tmp_path)["w"]
    os.truncate(path, path.stat().st_size - 4)
    with pytest.raises(ExportError, match="became shorter"):
        weight.read()


class Opens:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("archive", [True, False])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(
    tmp_path: Path, archive: bool
) -> None:
    path = tmp_path / "pytorch_model.bin"
    torch.save({"w": Opens(tmp_path / "ran")}, path, _use_new_zipfile_serialization=archive)
    with pytest.raises(ExportError, match=r"pytorch_model\.bin is not loaded.* runs code"):
        open_checkpoint(tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"no pickle", b"PK\x03\x04 no archive"])
def test_a_broken_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ExportError, match=r"^pytorch_model\.bin "):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("content", [[VALUES], {"model": {"w": VALUES}}])
def test_a_pickle_of_something_other_than_weights_is_refused(
    tmp_path: Path, content: object
) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ExportError, match="no list of weights by name"):
        open_checkpoint(tmp_path)
