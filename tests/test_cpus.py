"""The CPUs that a process may use, by its affinity, its cgroup and its share on Lambda."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from handlers import cpus
from handlers.cpus import available_cpus


@pytest.fixture(autouse=True)
def host_of_64_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(64)))
    monkeypatch.setattr(cpus, "_cgroup_quota", lambda: None)


@pytest.mark.parametrize(
    ("megabytes", "expected"),
    [(None, 64), ("", 64), ("a lot", 64), ("128", 1), ("1769", 1), ("1770", 2), ("10240", 6)],
)
def test_lambda_grants_cpus_by_memory(megabytes: str | None, expected: int) -> None:
    assert available_cpus(megabytes) == expected


@pytest.mark.parametrize(("quota", "expected"), [(0.5, 1), (1.5, 2), (4.0, 4), (128.0, 64)])
def test_a_quota_counts_as_whole_cpus_and_never_as_none(
    monkeypatch: pytest.MonkeyPatch, quota: float, expected: int
) -> None:
    monkeypatch.setattr(cpus, "_cgroup_quota", lambda: quota)
    assert available_cpus() == expected


CGROUPS = [
    ({"cpu.max": "150000 100000"}, 1.5),
    ({"cpu.max": "max 100000"}, None),
    ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.0),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
    ({}, None),
]


@pytest.mark.parametrize(("files", "quota"), CGROUPS)
def test_the_quota_of_both_versions_of_cgroups_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], quota: float | None
) -> None:
    monkeypatch.undo()
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpus._cgroup_quota(tmp_path) == quota
