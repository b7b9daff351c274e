"""The disk cache of downloaded models: a directory for each manifest, under TMPDIR.

Directories are named by the manifest's sha256 and the manifest has each file's, so any process may
resume the download of one that was cut short, by Lambda's limit of 10 s for its init for example.
Two locks: one process at a time writes, and what any process uses is not deleted. Models
that no process uses give their space to one that is to be downloaded.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from handlers.artifact.file_system import file_system, is_memory
from handlers.artifact.manifest import FileInfo
from handlers.errors import FetchError
from handlers.memory import available_memory

log = logging.getLogger(__name__)

LOCK = ".lock"
USED = ".used"

_used: list[IO[bytes]] = []
"""Open, and so locked, for the process's life: a session maps its files for as long."""


def cache_directory(manifest: memoryview) -> Path:
    """Makes the directory of a model and keeps it for as long as this process lives.

    Raises FetchError, also for a cache that belongs to another user.
    """
    try:
        root = Path(tempfile.gettempdir()) / f"kindling-{os.getuid()}"
        root.mkdir(mode=0o700, exist_ok=True)
        if root.lstat().st_uid != os.getuid() or root.is_symlink():
            raise FetchError(f"{root} belongs to somebody else: delete it, or set TMPDIR.")
        directory = root / hashlib.sha256(manifest).hexdigest()[:16]
        while not _acquire(directory):
            pass
    except OSError as error:
        raise FetchError(
            f"There is no place for the model ({error.strerror}): set TMPDIR to a directory that "
            f"can be written to."
        ) from error
    return directory


def _acquire(directory: Path) -> bool:
    """Locks the directory against deletion. False when another process has just deleted it."""
    # `exist_ok` looks again whether it is there, and is an error when it has gone by then.
    with suppress(FileExistsError):
        directory.mkdir()
    try:
        used = (directory / USED).open("ab")
    except FileNotFoundError:
        return False
    fcntl.flock(used, fcntl.LOCK_SH)
    if not is_same_file(used, directory / USED):
        used.close()
        return False
    _used.append(used)
    return True


def is_same_file(file: IO[bytes], path: Path) -> bool:
    """Tells whether an open file is still the one at `path`. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def locked(directory: Path) -> IO[bytes]:
    """Takes the lock for writing, which holds until it is closed or the process ends.

    Waits for another process that has it.
    """
    lock = (directory / LOCK).open("wb")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("Another process is fetching this model: waiting for it.")
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def pending_files(directory: Path, files: Mapping[str, FileInfo]) -> dict[str, FileInfo]:
    """Returns the files that are still to be downloaded, the smallest first.

    One of another size is deleted: a machine that lost its power may have kept a file's name
    without its bytes.
    """
    names = sorted(files, key=lambda name: files[name].size)
    return {name: files[name] for name in names if not _is_whole(directory / name, files[name])}


def _is_whole(path: Path, info: FileInfo) -> bool:
    try:
        whole = path.stat().st_size == info.size
    except FileNotFoundError:
        return False
    if not whole:
        path.unlink()
    return whole


def partial_path(path: Path) -> Path:
    """Returns where the beginning of a file lies until the file is complete and verified."""
    return path.with_name(f"{path.name}.part")


def make_space(directory: Path, files: Mapping[str, FileInfo]) -> None:
    """Deletes models that no process uses, if the pending files need their space.

    Raises FetchError when there is not enough even so; and OSError.
    """
    need = sum(info.size - _partial_bytes(directory / name) for name, info in files.items())
    if need > _free_space(directory):
        _delete_unused(directory)
    free = _free_space(directory)
    if need > free:
        raise no_space(directory, f"needs {need:,} bytes more and there are {free:,}")


def no_space(directory: Path, why: str) -> FetchError:
    """Returns the error for a full disk, which says what to do about it."""
    return FetchError(
        f"The model finds no room in {directory.parent}: it {why}. On Lambda give the function "
        f"more ephemeral storage, up to 10,240 MB; on Cloud Run, where files take memory, a higher "
        f"memory limit; elsewhere set TMPDIR to where there is room."
    )


def _partial_bytes(path: Path) -> int:
    try:
        return partial_path(path).stat().st_size
    except FileNotFoundError:
        return 0


def _free_space(directory: Path) -> int:
    free = shutil.disk_usage(directory).free
    return min(free, available_memory()) if is_memory(file_system(directory)) else free


def _delete_unused(directory: Path) -> None:
    """Deletes the models that no process uses.

    Each is moved away first: a process that looks for it finds all of it or nothing.
    """
    for other in directory.parent.iterdir():
        try:
            with (other / USED).open("ab") as used:
                fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not is_same_file(used, other / USED):
                    continue
                away = Path(tempfile.mkdtemp(dir=directory.parent))
                other.rename(away / other.name)
        except OSError:
            continue  # it is in use, this model's own among them, or has gone
        shutil.rmtree(away, ignore_errors=True)
