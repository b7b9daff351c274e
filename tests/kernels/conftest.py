"""What the tests of the kernels go through: each kind of CPU, and both types of a cache."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.kernels.attention_kinds import NAMES
from tests.support.switchable_kernels import use_kernels


@pytest.fixture(params=NAMES)
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each kernel that this CPU has, in turn; the best again in the end."""
    if not use_kernels(request.param):
        pytest.skip(f"this CPU has no {request.param}")
    yield request.param
    next(filter(use_kernels, reversed(NAMES)))


@pytest.fixture(params=[False, True], ids=["float32", "float16"])
def half(request: pytest.FixtureRequest) -> bool:
    """The cache's type."""
    found: bool = request.param
    return found
