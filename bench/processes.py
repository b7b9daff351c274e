"""Reads what Linux knows of a process: its memory, what it read, and the page cache."""

from __future__ import annotations

import os
from pathlib import Path

DROP_CACHES = Path("/proc/sys/vm/drop_caches")


def peak_rss_mb(pid: int) -> float:
    """Megabytes (1e6) that the process and its children have held at most, each at its own peak.

    VmHWM, the high-water mark of the resident set (proc_pid_status(5)). Pages of mapped files,
    weights among them, count as far as they were touched.
    """
    return sum(_field(pid, "status", "VmHWM") for pid in process_tree(pid)) * 1024 / 1e6


def rss_mb(pid: int) -> float:
    """Megabytes (1e6) that they hold now. Pages that several of them map count in each."""
    return memory_mb(pid)[0]


def memory_mb(pid: int) -> tuple[float, float]:
    """Megabytes (1e6) that they hold now: all that is resident, and what of it is no file's.

    Pages that several of them map count in each. A process that is ending counts as nothing.
    """
    resident = own = 0
    try:
        members = process_tree(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0.0
    for member in members:
        try:
            status = Path(f"/proc/{member}/status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "VmRSS:" in status:
            resident += _value(status, "VmRSS")
            own += _value(status, "RssAnon") + _value(status, "RssShmem")
    return resident * 1024 / 1e6, own * 1024 / 1e6


def available_mb() -> float:
    """Megabytes (1e6) that new programs can have without swapping (proc_meminfo(5))."""
    return _value(Path("/proc/meminfo").read_text(), "MemAvailable") * 1024 / 1e6


def read_mb(pid: int) -> float:
    """Megabytes (1e6) that the process and its children had fetched from the disk.

    read_bytes of proc_pid_io(5): page faults in mapped files and read-ahead count, what was in the
    page cache does not.
    """
    return sum(_field(pid, "io", "read_bytes") for pid in process_tree(pid)) / 1e6


def process_tree(pid: int) -> list[int]:
    """The process, its children, and theirs (proc_pid_task_tid_children(5))."""
    children = [
        int(child)
        for task in Path(f"/proc/{pid}/task").glob("*/children")
        for child in task.read_text().split()
    ]
    return [pid, *(member for child in children for member in process_tree(child))]


def _field(pid: int, file: str, name: str) -> int:
    return _value(Path(f"/proc/{pid}/{file}").read_text(), name)


def _value(text: str, name: str) -> int:
    return int(text.partition(f"{name}:")[2].split()[0])


def no_page_cache_drop() -> str | None:
    """Returns why this process cannot empty the page cache, or None where it can."""
    if os.geteuid() != 0:
        return "only root may empty the page cache"
    return None if os.access(DROP_CACHES, os.W_OK) else f"{DROP_CACHES} cannot be written"


def drop_page_cache() -> None:
    """Forgets every file that no running process has mapped.

    The benchmark's own process keeps the interpreter's pages in memory, and nothing else of what
    a server needs: it imports the standard library alone.
    """
    os.sync()
    DROP_CACHES.write_text("3")
