"""Runs the tests of the kernels with both types of a cache."""

from __future__ import annotations

import pytest

from tests.support.switchable_kernels import switchable_library


@pytest.fixture(scope="session", autouse=True)
def _compiled() -> None:
    """Compiles the kernels before the first test, unless they are as they were."""
    switchable_library()


@pytest.fixture(params=[False, True], ids=["float32", "float16"])
def half(request: pytest.FixtureRequest) -> bool:
    """The cache's type."""
    found: bool = request.param
    return found
