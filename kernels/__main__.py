"""Compiles what is in C: `python -m kernels [--out FOLDER] [--machine x86_64]`.

Two libraries: the kernels, which an image has, and the export's search for scales and offsets.

The compiler is a package, ziglang: clang with every target's C library, pinned as all packages, so
neither this machine's compiler nor its C library decides what the library becomes. They need
glibc 2.28, as onnxruntime's own wheel does, and choose by the CPU when they run, so one library
serves every CPU of a kind of machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCES = Path(__file__).resolve().parent
ROOT = SOURCES.parent
KERNELS = Path("handlers", "engine", "kernels.so")
SEARCH = Path("model_export", "quantize", "search_affine.so")
FOR_X86 = {"avx2.c", "avx512.c"}
FLAGS = [
    "-std=gnu17",
    "-O3",
    "-ffp-contract=off",  # a product and a sum are fused where the code says so, on every CPU
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-psabi",  # vectors are passed between inline functions alone
    "-fPIC",
    "-shared",
    "-s",
    "-ffunction-sections",
    "-Wl,--gc-sections",
]
EXPORTS = SOURCES / "exports.map"


def main() -> None:
    """Parses the command line and compiles."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=ROOT, help=f"the folder of {KERNELS}, {SEARCH}")
    parser.add_argument("--machine", default=platform.machine(), help="x86_64 or aarch64")
    options = parser.parse_args()
    out, machine = options.out.resolve(), options.machine
    search = ROOT / SEARCH.with_suffix(".c")
    sys.exit(
        compile_library(out / KERNELS, machine, kernel_files(machine))
        or compile_library(out / SEARCH, machine, [search])
    )


def kernel_files(machine: str) -> list[Path]:
    """Returns the files of the kernels that a kind of machine can run."""
    every = sorted(SOURCES.glob("*.c"))
    return [path for path in every if machine == "x86_64" or path.name not in FOR_X86]


def compile_library(
    out: Path, machine: str, sources: Sequence[Path], exports: Path = EXPORTS
) -> int:
    """Compiles to `out`, which is replaced atomically: a process may have it mapped.

    Returns the exit status.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / out.name
        flags = [*FLAGS, f"-I{SOURCES}", f"-Wl,--version-script={exports}"]
        command = [*compiler(machine), *flags, "-o", str(built), *map(str, sources)]
        environ = os.environ | caches(scratch)
        done = subprocess.run(command, cwd=SOURCES, env=environ, check=False)
        if done.returncode == 0:
            fresh = out.with_name(f".{out.name}")
            fresh.write_bytes(built.read_bytes())
            fresh.replace(out)
    return done.returncode


def compiler(machine: str) -> list[str]:
    """Returns the compiler's command, which takes clang's options."""
    return [sys.executable, "-m", "ziglang", "cc", "-target", f"{machine}-linux-gnu.2.28"]


def caches(directory: str) -> dict[str, str]:
    """Returns the environment variables that keep its caches in `directory`."""
    return dict.fromkeys(("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR"), directory)


if __name__ == "__main__":
    main()
