"""Shows every server AVX2 and nothing wider: what Lambda and Cloud Run promise.

A library is preloaded into each process that the benchmark starts (avx2.c). ONNX Runtime, numpy
and torch choose their kernels by CPUID, so they then run as on such a CPU, at this one's clock and
memory. llama.cpp chooses when it is compiled: it has a second build (peers/llama_cpp.py).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bench.prepare import NotRunnable, run_once
from bench.servers import CACHE

SOURCE = Path(__file__).with_name("avx2.c")
LIBRARY = CACHE / "avx2.so"
PRELOAD = "LD_PRELOAD"


def show_avx2_alone() -> None:
    """From now on. Raises NotRunnable where the compiler, the kernel or the CPU cannot do it."""
    LIBRARY.unlink(missing_ok=True)  # its source may have changed since
    run_once(LIBRARY, ("cc", "-O2", "-shared", "-fPIC", "-o", str(LIBRARY), str(SOURCE)))
    os.environ[PRELOAD] = str(LIBRARY)
    if subprocess.run((sys.executable, "-c", ""), check=False).returncode != 0:
        del os.environ[PRELOAD]
        raise NotRunnable("this machine cannot trap CPUID (`cpuid_fault` in /proc/cpuinfo)")


def is_shown_alone() -> bool:
    """Whether the processes that this one starts see AVX2 alone."""
    return os.environ.get(PRELOAD) == str(LIBRARY)
