"""Shows every server AVX2 and nothing wider: what Lambda and Cloud Run promise.

A library is preloaded into each process that the benchmark starts (avx2.c). ONNX Runtime, numpy
and torch choose their kernels by CPUID, so they then run as on such a CPU, at this one's clock and
memory. llama.cpp chooses when it is compiled: it has a second build (peers/llama_cpp.py).
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.prepare import NotRunnable, run_once
from bench.servers import CACHE
from kernels.__main__ import caches, compiler

SOURCE = Path(__file__).with_name("avx2.c")
LIBRARY = CACHE / "avx2.so"
PRELOAD = "LD_PRELOAD"


def show_avx2_alone() -> None:
    """Hides all but AVX2 from now on.

    Raises NotRunnable where the compiler, the kernel or the CPU cannot do it.
    """
    LIBRARY.unlink(missing_ok=True)  # its source may have changed since
    command = [*compiler(platform.machine()), "-O2", "-shared", "-fPIC"]
    with tempfile.TemporaryDirectory() as scratch:
        run_once(LIBRARY, [*command, "-o", str(LIBRARY), str(SOURCE)], caches(scratch))
    os.environ[PRELOAD] = str(LIBRARY)
    if subprocess.run((sys.executable, "-c", ""), check=False).returncode != 0:
        del os.environ[PRELOAD]
        raise NotRunnable("this machine cannot trap CPUID (`cpuid_fault` in /proc/cpuinfo)")


def is_shown_alone() -> bool:
    """Returns whether the processes that this one starts see AVX2 alone."""
    return os.environ.get(PRELOAD) == str(LIBRARY)
