"""Writes what each test took, and its tier, for scripts/test_times.py."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support.tiers import TIER


class Times:
    """The plugin, of the process that reports: not of a worker."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._began = time.monotonic()
        self._tests: dict[str, tuple[str, float]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Adds a test's setup, call and teardown."""
        tier = str(dict(report.user_properties)[TIER])
        _, before = self._tests.get(report.nodeid, ("", 0.0))
        self._tests[report.nodeid] = (tier, before + report.duration)

    def pytest_sessionfinish(self) -> None:
        """Appends one line: all that ran."""
        tests = [(name, tier, round(took, 2)) for name, (tier, took) in self._tests.items()]
        run = {"seconds": round(time.monotonic() - self._began, 1), "tests": tests}
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(run) + "\n")
