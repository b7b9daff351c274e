"""pytest's hooks for the tiers: marks each test, chooses by --tier, and holds each to its tier."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tiers import TIER, TIERS, depends_on_transformers, tier_of, tier_of_file

ALONE = {"fast", "engine", "demo"}
"""Tiers whose tests start no process and load no torch."""
STARTS = {"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn"}

LIMITS = {
    "tests/clouds/test_openapi.py": 900,  # an operation is one test with all of its cases
    "tests/images/": 900,  # some build images
}
"""Seconds of a test without its fixtures, where they are not the timeout of pyproject.toml."""


class Tiers:
    """The plugin that sorts tests into tiers."""

    def __init__(self, config: pytest.Config) -> None:
        self.chosen: list[str] = config.getoption("tier") or []
        self.again: bool = config.getoption("transformers_major")
        self.guarded = False
        for name, meaning in TIERS.items():
            config.addinivalue_line("markers", f"{name}: {meaning}")
        sys.addaudithook(self._refuse_a_process)

    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Does not import what is certainly not chosen: torch takes ten seconds."""
        if not self.chosen or not collection_path.match("test_*.py"):
            return None
        tier = tier_of_file(collection_path)
        return True if tier and tier not in self.chosen else None

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        """Marks the tests with their tiers and time limits, and keeps the chosen."""
        left_out = []
        for item in items:
            tier = tier_of(item) if isinstance(item, pytest.Function) else "processes"
            item.add_marker(tier)
            item.user_properties.append((TIER, tier))
            for start, seconds in LIMITS.items():
                if item.nodeid.startswith(start):
                    item.add_marker(pytest.mark.timeout(seconds))
            if not self._is_chosen(item, tier):
                left_out.append(item)
        if left_out:
            config.hook.pytest_deselected(items=left_out)
            gone = set(left_out)
            items[:] = [item for item in items if item not in gone]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        """Fails a test that does what its tier excludes."""
        self.guarded = any(item.get_closest_marker(tier) for tier in ALONE)
        try:
            yield
        finally:
            self.guarded = False
        if self.chosen and ALONE.issuperset(self.chosen):
            assert "torch" not in sys.modules, "this test, or one before it, loaded torch"

    def _is_chosen(self, item: pytest.Item, tier: str) -> bool:
        if self.chosen and tier not in self.chosen:
            return False
        if self.again and isinstance(item, pytest.Function):
            return depends_on_transformers(item)
        return True

    def _refuse_a_process(self, event: str, _: tuple[object, ...]) -> None:
        if self.guarded and event in STARTS:
            raise RuntimeError("A test of this tier starts no process: tests/support/tiers.py.")
