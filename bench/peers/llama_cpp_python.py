"""llama-cpp-python's own server, on the very libraries that llama-server was built with.

Its Python part is run from the unpacked source distribution, so nothing is compiled twice. It
answers one request at a time, and others wait for its lock.
"""

from __future__ import annotations

import os
import sys

from bench.peers import llama_cpp
from bench.peers.peer import Peer
from bench.prepare import run_once
from bench.servers import Capacity, Server, python

PORT = 18486
PACKAGES = llama_cpp.HOME / "server-packages"
REQUIRED = ("sse-starlette==3.7.0", "starlette-context==0.5.1", "diskcache==5.6.3")


def prepare() -> None:
    """The build, and the few packages that its server needs besides fastapi's."""
    llama_cpp.build()
    pip = (sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check")
    run_once(PACKAGES, (*pip, "--no-deps", "--target", str(PACKAGES), *REQUIRED))


def server(capacity: Capacity) -> Server:
    """The server, set not to drop a running answer when another request comes."""
    environ = {
        "PYTHONPATH": os.pathsep.join((str(llama_cpp.SOURCE), str(PACKAGES))),
        "LLAMA_CPP_LIB_PATH": str(llama_cpp.binaries()),
    }
    options = {
        "--model": str(llama_cpp.gguf()),
        "--n_threads": str(capacity.threads),
        "--n_threads_batch": str(capacity.threads),
        "--n_ctx": str(capacity.context_length),
        "--interrupt_requests": "False",
        "--verbose": "False",
        "--port": str(PORT),
        "--host": "127.0.0.1",
    }
    words = (word for option in options.items() for word in option)
    command = python("-m", "llama_cpp.server", *words)
    # It knows no ignore_eos: id 2 ends this model's answers.
    never_end = {"logit_bias": {"2": -100}}
    return Server("llama-cpp-python", PORT, command, environ, never_end)


PEER = Peer(
    "llama-cpp-python",
    "the same GGUF file; one request at a time",
    server,
    prepare=prepare,
    packages=("fastapi", "uvicorn", "numpy"),
    build=llama_cpp.version,
)
