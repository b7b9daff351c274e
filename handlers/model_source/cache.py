"""Where fetched models lie: under TMPDIR, in a directory of each manifest's own.

Its name is the manifest's hash and the manifest has each file's, so what lies there is what a
process looks for, whichever process fetched it: a start that was cut short, Lambda's init of 10 s
for one, is gone on with. Two locks: one process at a time writes, and what any process uses is not
dropped. Used by fetch.py and room.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from handlers.artifact.manifest import FileInfo
from handlers.errors import FetchError

log = logging.getLogger(__name__)

LOCK = ".lock"
USED = ".used"

_used: list[IO[bytes]] = []
"""Open, and so locked, for the process's life: a session maps its files for as long."""


def directory_of(manifest: memoryview) -> Path:
    """Made, nobody else's, and kept for as long as this process lives. Raises FetchError."""
    try:
        root = Path(tempfile.gettempdir()) / f"kindling-{os.getuid()}"
        root.mkdir(mode=0o700, exist_ok=True)
        if root.lstat().st_uid != os.getuid() or root.is_symlink():
            raise FetchError(f"{root} belongs to somebody else: delete it, or set TMPDIR.")
        directory = root / hashlib.sha256(manifest).hexdigest()[:16]
        while not _use(directory):
            pass
    except OSError as error:
        raise FetchError(
            f"There is no place for the model ({error.strerror}): set TMPDIR to a directory that "
            f"can be written to."
        ) from error
    return directory


def _use(directory: Path) -> bool:
    """False when another process has dropped it meanwhile."""
    # `exist_ok` looks again whether it is there, and is an error when it has gone by then.
    with suppress(FileExistsError):
        directory.mkdir()
    try:
        used = (directory / USED).open("ab")
    except FileNotFoundError:
        return False
    fcntl.flock(used, fcntl.LOCK_SH)
    if not is_at(used, directory / USED):
        used.close()
        return False
    _used.append(used)
    return True


def is_at(file: IO[bytes], path: Path) -> bool:
    """Whether an open file is still the one at `path`. Raises OSError."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


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
    """The files that are not there yet, the smallest first.

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
