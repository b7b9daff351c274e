"""A model on a network's file system, which is told by the kernel's table of mounts."""

from __future__ import annotations

import os
from io import FileIO
from pathlib import Path

import pytest

from handlers.artifact import source
from handlers.artifact.file_system import file_system, is_memory, is_network
from handlers.artifact.manifest import Artifact
from handlers.artifact.source import open_source, read_ahead
from handlers.config import Settings
from handlers.errors import ArtifactError
from tests.artifact.conftest import WEIGHTS, manifest_of, model_files


@pytest.fixture
def model(tmp_path: Path, small_parts: None) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    files = model_files()
    for name, content in (files | {"manifest.json": manifest_of(files)}).items():
        (directory / name).write_bytes(content)
    return directory


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "file_system", lambda _: "nfs4")


def settings(model: Path) -> Settings:
    return Settings.from_environ({"MODEL_DIR": str(model)})


def test_a_model_on_a_local_disk_is_not_read(model: Path) -> None:
    assert open_source(settings(model)).weights is None


def test_a_model_on_a_networks_mount_is_read_whole(model: Path, network: None) -> None:
    opened = open_source(settings(model))
    assert opened.artifact == Artifact.open(model)
    waited = opened.wait()
    assert waited is not None
    assert waited > 0


def test_files_of_two_exports_with_the_same_sizes_are_told_apart(
    model: Path, network: None
) -> None:
    (model / "model.onnx.data").write_bytes(WEIGHTS[::-1])
    opened = open_source(settings(model))
    with pytest.raises(ArtifactError, match=r"model\.onnx\.data is not the file .* one export"):
        opened.wait()


def test_a_file_that_cannot_be_read_is_named(model: Path) -> None:
    artifact = Artifact.open(model)
    (model / "LICENSE").unlink()
    with pytest.raises(ArtifactError, match="LICENSE cannot be read: No such file"):
        read_ahead(artifact).result()


def test_a_file_system_may_give_less_than_was_asked_for(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 4096))

    monkeypatch.setattr(Path, "open", lambda path, *_, **__: Short(path))
    assert read_ahead(Artifact.open(model)).result() > 0


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("36 35 {device} / /mnt/efs rw,noatime shared:1 - nfs4 127.0.0.1:/ rw,vers=4.1", "nfs4"),
        ("36 35 {device} / /mnt/a\\040b ro - fuse.gcsfuse bucket rw", "fuse.gcsfuse"),
        ("36 35 {device} / / rw shared:1 master:2 - ext4 /dev/vda rw", "ext4"),
        ("36 35 0:9999 / / rw - ext4 /dev/vda rw", ""),
    ],
)
def test_the_kernels_table_tells_a_file_system(line: str, kind: str, tmp_path: Path) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    other = "22 1 0:98765 / /proc rw - proc proc rw\n"
    numbers = f"{os.major(device)}:{os.minor(device)}"
    mounts.write_text(other + line.format(device=numbers) + "\n" + other)
    assert file_system(tmp_path, mounts) == kind


def test_where_there_is_no_table_the_file_system_is_unknown(tmp_path: Path) -> None:
    assert file_system(tmp_path, tmp_path / "none") == ""


def test_this_machines_table_can_be_read() -> None:
    assert file_system(Path("/proc/self/stat")) == "proc"


def test_what_reads_over_a_network_and_what_lies_in_memory() -> None:
    assert all(map(is_network, ("nfs", "nfs4", "fuse", "fuse.gcsfuse")))
    assert not any(map(is_network, ("ext4", "xfs", "overlay", "tmpfs", "squashfs", "")))
    assert not any(map(is_network, ("fuseblk", "fuse.fuse-overlayfs")))
    assert is_memory("tmpfs")
    assert not is_memory("ext4")
