"""Tests where a fetched model lies, and what it does when there is no room."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO

import pytest

from handlers import memory
from handlers.artifact import disk_cache
from handlers.artifact.download import fetch
from handlers.errors import FetchError
from tests.artifact.conftest import WEIGHTS, fetched, put_model
from tests.support.object_servers import Place

DATA = "model.onnx.data"


def limit_memory(monkeypatch: pytest.MonkeyPatch, cgroup: Path, *, file: int, shmem: int) -> None:
    """A container of 500,000 bytes, half of which are used, and whose /tmp is memory."""
    monkeypatch.setattr(memory, "CGROUP", cgroup)
    monkeypatch.setattr(disk_cache, "file_system", lambda _: "tmpfs")
    (cgroup / "memory.max").write_text("500000\n")
    (cgroup / "memory.current").write_text("250000\n")
    (cgroup / "memory.stat").write_text(f"anon 150000\nfile {file}\nshmem {shmem}\n")


def test_a_full_disk_is_told_before_anything_is_fetched(
    web: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_cache, "_free_space", lambda _: 300_000)
    with pytest.raises(
        FetchError, match=r"needs 301,707 bytes more and there are 300,000\. .* 10,240 MB"
    ):
        fetch(web.uri)
    assert web.proxy.fetched(DATA) == 0


def test_files_in_memory_have_the_room_that_memory_has(
    web: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit_memory(monkeypatch, tmp_path, file=100_000, shmem=100_000)
    with pytest.raises(FetchError, match=r"there are 250,000\. .* a higher memory limit"):
        fetch(web.uri)
    (tmp_path / "memory.max").write_text("max\n")
    fetched(web)


def test_a_directory_that_cannot_be_written_to_is_an_error(web: Place, cache: Path) -> None:
    shutil.rmtree(cache)
    cache.write_text("no directory")
    tempfile.tempdir = str(cache)
    with pytest.raises(FetchError, match=r"no place for the model .*: set TMPDIR"):
        fetch(web.uri)


def test_a_link_to_elsewhere_is_not_trusted(web: Place, tmp_path: Path) -> None:
    directory = fetched(web).directory
    elsewhere = tmp_path / "elsewhere"
    directory.parent.rename(elsewhere)
    directory.parent.symlink_to(elsewhere)
    with pytest.raises(FetchError, match="belongs to somebody else"):
        fetch(web.uri)


def test_where_no_file_system_can_be_written_to_the_error_says_so(
    web: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", fail)
    with pytest.raises(FetchError, match=r"No usable temporary directory found\): set TMPDIR"):
        fetch(web.uri)


def test_an_earlier_model_makes_room_for_the_next(
    web: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fetched(web).directory
    disk_cache._used.pop().close()  # its process ends
    put_model(web, WEIGHTS[::-1])
    monkeypatch.setattr(disk_cache, "_free_space", lambda _: 0 if old.exists() else 10**6)
    new = fetched(web).directory
    assert (new / DATA).exists()
    assert not old.exists()


def test_the_cache_of_files_on_disks_is_room_too(
    web: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limit_memory(monkeypatch, tmp_path, file=400_000, shmem=100_000)
    assert (fetched(web).directory / DATA).read_bytes() == WEIGHTS


def test_a_model_that_is_in_use_makes_no_room(web: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    served = fetched(web).directory
    put_model(web, WEIGHTS[::-1])
    monkeypatch.setattr(disk_cache, "_free_space", lambda _: 0)
    with pytest.raises(FetchError, match="finds no room"):
        fetch(web.uri)
    assert (served / DATA).read_bytes() == WEIGHTS


def test_a_directory_that_is_dropped_before_it_is_locked_is_made_anew(
    web: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    dropped: list[Path] = []

    def late(file: IO[bytes], operation: int) -> None:
        if not dropped:
            dropped.append(Path(file.name).parent)
            shutil.rmtree(dropped[0])
        flock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    assert (fetched(web).directory / DATA).read_bytes() == WEIGHTS
    assert dropped


def test_a_directory_that_is_dropped_as_soon_as_it_is_found_is_made_anew(
    web: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = fetched(web).directory
    mkdir = os.mkdir

    def late(path: Path, mode: int = 0o777) -> None:
        try:
            mkdir(path, mode)
        except FileExistsError:
            if path == directory:
                shutil.rmtree(path)
            raise

    monkeypatch.setattr(os, "mkdir", late)
    assert fetched(web).directory == directory
    assert (directory / DATA).read_bytes() == WEIGHTS


@pytest.mark.parametrize("name", ["manifest.json", ".lock", f"{DATA}.part", DATA])
def test_what_cannot_be_written_to_is_named(web: Place, name: str) -> None:
    directory = fetched(web).directory
    (directory / DATA).unlink()
    (directory / name).unlink(missing_ok=True)
    (directory / name).mkdir()
    with pytest.raises(FetchError, match=f"cannot be kept at .*{name} \\(Is a directory\\)"):
        fetched(web)


def test_a_disk_that_is_full_after_all_is_told_so(
    web: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FetchError, match=r"no room in .* has run out of it\. On Lambda"):
        fetch(web.uri)


def test_a_directory_of_another_user_is_not_trusted(
    web: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = os.getuid()
    fetched(web).directory.parent.rename(Path(tempfile.gettempdir()) / f"kindling-{uid + 1}")
    monkeypatch.setattr(os, "getuid", lambda: uid + 1)
    with pytest.raises(FetchError, match="belongs to somebody else"):
        fetch(web.uri)
