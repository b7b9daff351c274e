"""The machine and the revision that a figure belongs to."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from bench.avx2 import is_shown_alone
from bench.servers import ROOT

# Instruction sets that decide how fast a matrix product of a given type can be.
CPU_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


def describe_machine(threads: int) -> dict[str, Any]:
    """Taken before the run, so that the load is other programs'.

    The CPU is described as in proc_cpuinfo(5): by "flags" on x86, by "Features" on ARM.
    """
    pairs = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    present = fields.get("flags", fields.get("Features", "")).split()
    return {
        "cpu": fields.get("model name", platform.machine()),
        "flags": ["avx2 alone"] if is_shown_alone() else [f for f in CPU_FLAGS if f in present],
        "threads": threads,
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """The revision that was measured; "+" when files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
