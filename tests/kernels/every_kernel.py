"""Runs a node by every kernel that this CPU has: all must give the portable one's bits.

So what a test says of the result, it says of each of them, whatever its inputs are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from tests.support.switchable_kernels import use_kernels

Array = NDArray[np.generic]
NAMES = ("portable", "avx2", "avx512")
"""The first is the one that others are compared with, the last the best."""


def run(session: onnxruntime.InferenceSession, x: Array) -> NDArray[np.float32]:
    """The output of a node with one input and no state."""
    return alike(lambda: [session.run(None, {"x": x})[0]])[0].astype(np.float32, copy=False)


def alike(compute: Callable[[], list[Array]]) -> list[Array]:
    """The arrays that `compute` gives by every kernel. Raises AssertionError where a bit differs.

    On x86-64 the portable kernel's stand-in for a fused multiply-add rounds twice, once in some
    2^29 times (kernels/kernels.h). No test's inputs meet that; one's that do need another number.
    """
    first: list[Array] = []
    for name in available():
        use_kernels(name)
        found = compute()
        first = first or found
        for array, portable in zip(found, first, strict=True):
            assert array.dtype == portable.dtype, name
            assert array.tobytes() == portable.tobytes(), f"{name} differs"
    return first


@cache
def available() -> tuple[str, ...]:
    """The kernels that this CPU can run."""
    return tuple(filter(use_kernels, NAMES))
