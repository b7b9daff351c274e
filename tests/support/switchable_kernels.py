"""The kernels in a library of the tests' own, which lets them choose among the kinds of CPU.

The library that is served has no such switch, which nothing keeps from being turned amid a call.
"""

from __future__ import annotations

import atexit
import ctypes
import platform
import tempfile
from functools import cache
from pathlib import Path

from kernels.__main__ import compile_library

SWITCH = Path(__file__).resolve().parent.parent / "kernels" / "switch.c"


@cache
def switchable_library() -> Path:
    """The library, of the sources and flags of the served one, compiled once in a process."""
    directory = tempfile.TemporaryDirectory(prefix="kernels")
    atexit.register(directory.cleanup)
    out = Path(directory.name) / "kernels.so"
    exports = SWITCH.with_suffix(".map")
    assert compile_library(out, platform.machine(), [SWITCH], exports) == 0
    return out


def use_kernels(name: str) -> bool:
    """Let every session with this library compute with the kernels of that name, if the CPU can."""
    return bool(ctypes.CDLL(str(switchable_library())).use_kernels(name.encode()))
