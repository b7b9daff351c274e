"""Reads how much memory this process may use, as /proc and its cgroup say."""

from __future__ import annotations

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


def available_memory() -> int:
    """Returns the free bytes of the machine, or of the container where that has fewer."""
    available = 1024 * _numbers(_MEMINFO)["MemAvailable:"]
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        stat = _numbers(CGROUP / "memory.stat")
    except (OSError, ValueError):  # "max" where there is no limit
        return available
    # The cache of files on disks is counted as used, but given back as soon as memory is wanted.
    return min(available, limit - used + stat["file"] - stat["shmem"])


def total_memory() -> int:
    """Returns all bytes of the machine, or of the container where that has fewer."""
    total = 1024 * _numbers(_MEMINFO)["MemTotal:"]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of cgroup v2 and v1
        try:
            return min(total, int((CGROUP / name).read_text()))
        except (OSError, ValueError):
            continue
    return total


def _numbers(table: Path) -> dict[str, int]:
    """Parses the first two columns of a table."""
    rows = (line.split() for line in table.read_text().splitlines())
    return {row[0]: int(row[1]) for row in rows}
