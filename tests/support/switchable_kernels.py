"""The kernels in a library of the tests' own, which lets them choose among the kinds of CPU.

The library that is served has no such switch, which nothing keeps from being turned during a call.
"""

from __future__ import annotations

import ctypes
import platform
from functools import cache
from pathlib import Path

from kernels.__main__ import SOURCES, compile_library, kernel_files
from tests.support.import_graph import ROOT
from tests.support.kept import kept

SWITCH = ROOT / "tests" / "kernels" / "switch.c"


@cache
def switchable_library() -> Path:
    """The library, of the sources and flags of the served one."""
    exports = SWITCH.with_suffix(".map")

    def compiled(directory: Path) -> None:
        out = directory / "kernels.so"
        files = [*kernel_files(platform.machine()), SWITCH]
        assert compile_library(out, platform.machine(), files, exports) == 0

    return kept("kernels", [*kernel_sources(), SWITCH, exports], compiled) / "kernels.so"


def kernel_sources() -> list[Path]:
    """All that a compiled kernel is made of."""
    return [path for path in SOURCES.iterdir() if path.suffix in {".c", ".h", ".map", ".py"}]


def use_kernels(name: str) -> bool:
    """Let every session with this library compute with the kernels of that name, if the CPU can."""
    return bool(ctypes.CDLL(str(switchable_library())).use_kernels(name.encode()))
