"""The plain way to serve a language model: FastAPI, transformers and torch, in fp32."""

from __future__ import annotations

import hashlib
from pathlib import Path

from bench.installed import Footprint, closure
from bench.peers.peer import RECIPE, Peer
from bench.prepare import run_once
from bench.servers import CACHE, ROOT, Capacity, Server, python, uvicorn

PORT = 18481
PACKAGES = ("torch", "transformers", "fastapi", "uvicorn")


def model_directory() -> Path:
    """Another place for each content of the recipe."""
    recipe = ROOT / "model_export" / "recipes" / f"{RECIPE}.toml"
    return CACHE / f"plain-{hashlib.sha256(recipe.read_bytes()).hexdigest()[:12]}"


def prepare() -> None:
    """Saves the model that the demo is exported from in fp32."""
    directory = model_directory()
    run_once(directory, python("-m", "bench.peers.save_model", RECIPE, str(directory)))


def server(capacity: Capacity) -> Server:
    """Has no slots: each request generates in a thread of its own.

    OpenMP's threads spin while they wait, as is its default. With OMP_WAIT_POLICY=PASSIVE one
    stream ran at 15 tokens a second instead of 23 on 2 CPUs, and four together no faster.
    """
    return server_of("plain", PORT, model_directory(), capacity)


def server_of(name: str, port: int, directory: Path, capacity: Capacity) -> Server:
    """The plain server's program with another model in it."""
    environ = {
        "PEER_MODEL": str(directory.relative_to(ROOT)),
        "PEER_TOKENIZER": str(model_directory().relative_to(ROOT)),
        "OMP_NUM_THREADS": str(capacity.threads),
    }
    return Server(name, port, uvicorn("bench.peers.plain_server:app", port), environ)


PEER = Peer(
    "plain",
    "fp32, on torch",
    server,
    prepare=prepare,
    packages=PACKAGES,
    footprint=lambda: Footprint(closure(PACKAGES), (model_directory(),)),
)
