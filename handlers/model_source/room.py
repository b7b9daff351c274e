"""Room for a model that is to be fetched: what there is, and what earlier models give back.

Knows nothing of stores. Used by fetch.py.
"""

from __future__ import annotations

import fcntl
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from handlers.artifact.manifest import FileInfo
from handlers.errors import FetchError
from handlers.model_source.cache import USED, is_at
from handlers.model_source.file_system import file_system, is_memory
from handlers.model_source.partial import unfinished

CGROUP = Path("/sys/fs/cgroup")


def make_room(directory: Path, files: Mapping[str, FileInfo]) -> None:
    """Raises FetchError when the files, as far as they are missing, have no room; and OSError."""
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
    available = 1024 * _numbers(Path("/proc/meminfo"))["MemAvailable:"]
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        of = _numbers(CGROUP / "memory.stat")
    except (OSError, ValueError):  # "max" where there is no limit
        return available
    # The cache of files on disks is counted as used, but given back as soon as memory is wanted.
    return min(available, limit - used + of["file"] - of["shmem"])


def _numbers(table: Path) -> dict[str, int]:
    """The first two columns."""
    rows = (line.split() for line in table.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows}


def _drop_others(directory: Path) -> None:
    """Earlier models that no process uses.

    Each is moved away first: whoever comes for it meanwhile finds all of it or nothing.
    """
    for other in directory.parent.iterdir():
        try:
            with (other / USED).open("ab") as used:
                fcntl.flock(used, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not is_at(used, other / USED):
                    continue
                away = Path(tempfile.mkdtemp(dir=directory.parent))
                other.rename(away / other.name)
        except OSError:
            continue  # it is in use, this model's own among them, or has gone
        shutil.rmtree(away, ignore_errors=True)
