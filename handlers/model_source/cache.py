"""Where fetched models lie: under TMPDIR, in a directory of each manifest's own.

Its name is the manifest's hash and the manifest has each file's, so what lies there is what a
process looks for, whichever process fetched it: a start that was cut short, Lambda's init of 10 s
for one, is gone on with. One process at a time writes. Used by fetch.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from handlers.engine.artifact import FileInfo
from handlers.errors import FetchError
from handlers.model_source.file_system import file_system, is_memory
from handlers.model_source.partial import unfinished

log = logging.getLogger(__name__)

LOCK = ".lock"
CGROUP = Path("/sys/fs/cgroup")


def directory_of(manifest: memoryview) -> Path:
    """Made, and nobody else's. Raises FetchError."""
    try:
        root = Path(tempfile.gettempdir()) / f"kindling-{os.getuid()}"
        root.mkdir(mode=0o700, exist_ok=True)
        if root.lstat().st_uid != os.getuid() or root.is_symlink():
            raise FetchError(f"{root} belongs to somebody else: delete it, or set TMPDIR.")
        directory = root / hashlib.sha256(manifest).hexdigest()[:16]
        directory.mkdir(exist_ok=True)
    except OSError as error:
        raise FetchError(
            f"There is no place for the model ({error.strerror}): set TMPDIR to a directory that "
            f"can be written to."
        ) from error
    return directory


def locked(directory: Path) -> IO[bytes]:
    """The lock, until it is closed or the process ends. Waits for another process that has it."""
    lock = (directory / LOCK).open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("Another process is fetching this model: waiting for it.")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def missing(directory: Path, files: Mapping[str, FileInfo]) -> dict[str, FileInfo]:
    """The files that are not there yet, the smallest first."""
    names = sorted(files, key=lambda name: files[name].size)
    return {name: files[name] for name in names if not (directory / name).exists()}


def make_room(directory: Path, files: Mapping[str, FileInfo]) -> None:
    """Raises FetchError when the files, as far as they are missing, have no room."""
    need = sum(info.size - _begun(directory / name) for name, info in files.items())
    if need > _room(directory):
        _drop_others(directory)
    room = _room(directory)
    if need > room:
        raise no_room(directory, f"needs {need:,} bytes more and there are {room:,}")


def no_room(directory: Path, why: str) -> FetchError:
    """With what to do about it."""
    return FetchError(
        f"The model finds no room in {directory.parent}: it {why}. On Lambda give the function "
        f"more ephemeral storage, up to 10,240 MB; on Cloud Run, where files take memory, a higher "
        f"memory limit; elsewhere set TMPDIR to where there is room."
    )


def _begun(path: Path) -> int:
    try:
        return unfinished(path).stat().st_size
    except FileNotFoundError:
        return 0


def _room(directory: Path) -> int:
    free = shutil.disk_usage(directory).free
    return min(free, _available_memory()) if is_memory(file_system(directory)) else free


def _available_memory() -> int:
    """What the machine has left, or less where a container may not take all of it."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    kilobytes = next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):  # "max" where there is no limit
        return kilobytes * 1024
    return min(kilobytes * 1024, limit - used)


def _drop_others(directory: Path) -> None:
    """Earlier models: who serves one has it open, and whoever fetches one has it locked."""
    for other in directory.parent.iterdir():
        with (other / LOCK).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # this model's own among them
            shutil.rmtree(other)
