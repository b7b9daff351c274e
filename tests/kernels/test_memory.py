"""No operator touches a byte beyond its memory: a page that ends the program lies there."""

from __future__ import annotations

import itertools
import os
import platform
import subprocess
import tempfile
from pathlib import Path

import pytest

from kernels.__main__ import FOR_X86, SOURCES, caches, compiler
from tests.kernels.every_kernel import NAMES
from tests.support.kept import kept
from tests.support.switchable_kernels import kernel_sources

FENCED = Path(__file__).with_name("fenced.c")
FLAGS = ["-std=gnu17", "-O1", "-ffp-contract=off", "-Wno-psabi", f"-I{SOURCES}"]
HEADS = ["9 3", "1 1", "8 1", "60 1"]
"""And key-value heads."""
SIZES = [1, 17, 24, 64, 80, 512]
WINDOWS = [-1, 1, 7, 70]
TOKENS = ["0 1 1", "500 1 1", "500 4 4", "0 100 16", "77 100 16", "333 65 5"]
"""Past, new ones, those of a part."""
STATES = ["0 1", "0 50", "9 1", "9 50"]
"""Past and new tokens of the operators whose state has a fixed size."""
BLOCKS = ["4 1 32", "4 0 64", "5 1 32", "6 1 64", "8 0 32", "4 2 32", "5 2 64", "6 2 32"]
"""Bits; 1 with offsets, 0 without, 2 for compact scales; and weights that share a scale."""
WRONG_KERNELS = 3
"""What the program says when the CPU cannot run them."""


@pytest.fixture(scope="session")
def fenced() -> Path:
    """The kernels in a program of their own, whose memory has such pages: fenced.c."""
    machine = platform.machine()
    kinds = ["portable.c", *(sorted(FOR_X86) if machine == "x86_64" else ())]
    sources = [FENCED, *(SOURCES / name for name in (*kinds, "cpu.c"))]

    def compiled(directory: Path) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            out = ["-o", str(directory / "fenced")]
            command = [*compiler(machine), *FLAGS, *out, *map(str, sources)]
            subprocess.run(command, env=os.environ | caches(scratch), check=True)

    return kept("fenced", [*kernel_sources(), FENCED, Path(__file__)], compiled) / "fenced"


@pytest.mark.parametrize("name", NAMES)
def test_a_product_with_weights_touches_no_byte_beyond_its_memory(fenced: Path, name: str) -> None:
    shapes = ["1 1", "64 16", "100 33", "576 48"]
    cases = [" ".join(case) for case in itertools.product(BLOCKS, shapes, map(str, [1, 2, 5, 17]))]
    compute(fenced, name, "affine", cases)


@pytest.mark.parametrize("half", [0, 1], ids=["float32", "float16"])
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("name", NAMES)
def test_attention_touches_no_byte_beyond_its_memory(
    fenced: Path, name: str, window: int, half: int
) -> None:
    cases = [
        f"{heads} {size} {window} {half} {tokens}"
        for heads, size, tokens in itertools.product(HEADS, SIZES, TOKENS)
    ]
    compute(fenced, name, "attention", cases)


@pytest.mark.parametrize("name", NAMES)
def test_a_convolution_touches_no_byte_beyond_its_memory(fenced: Path, name: str) -> None:
    channels, widths = [1, 17, 512, 515, 1030], [2, 4, 8]
    cases = [
        f"{count} {width} {bias} {tokens}"
        for count, width, bias, tokens in itertools.product(channels, widths, [0, 1], STATES)
    ]
    compute(fenced, name, "convolution", cases)


@pytest.mark.parametrize("name", NAMES)
def test_linear_attention_touches_no_byte_beyond_its_memory(fenced: Path, name: str) -> None:
    heads, sizes = ["2 2", "6 2"], ["1 1", "17 33", "24 40", "128 128", "512 9", "9 512", "512 512"]
    options = ["0 0", "0 1", "1 0", "1 1"]
    cases = [" ".join(case) for case in itertools.product(heads, sizes, options, STATES)]
    compute(fenced, name, "linear", cases)


def compute(fenced: Path, name: str, operator: str, cases: list[str]) -> None:
    """Those cases by the kernels of that name, each of which must come through."""
    command = [str(fenced), name, operator, *" ".join(cases).split()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == WRONG_KERNELS:
        pytest.skip(f"this CPU has no {name}")
    assert done.returncode == 0, f"ended while it computed {done.stdout.splitlines()[-1]}"
    assert done.stdout.splitlines() == cases
