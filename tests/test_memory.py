"""The memory that a process may use, by the machine and by its cgroup."""

from __future__ import annotations

from pathlib import Path

import pytest

from handlers import memory

MACHINE = "MemTotal:  8000 kB\nMemFree:  100 kB\nMemAvailable:  6000 kB\n"
LIMITS = [
    ({"memory.max": "5000000\n"}, 5_000_000),
    ({"memory.max": "9000000000\n"}, 8_192_000),
    ({"memory.max": "max\n"}, 8_192_000),
    ({"memory/memory.limit_in_bytes": "4000000\n"}, 4_000_000),
    ({}, 8_192_000),
]


@pytest.mark.parametrize(("files", "total"), LIMITS)
def test_all_memory_is_the_machines_or_what_the_container_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], total: int
) -> None:
    for name, text in {"meminfo": MACHINE, **files}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.total_memory() == total
    assert memory.available_memory() == 6_144_000
