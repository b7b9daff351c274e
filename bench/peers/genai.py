"""onnxruntime-genai: its builder's int4 graph, run by its own generator."""

from __future__ import annotations

from pathlib import Path

from bench.peers import plain
from bench.peers.peer import Peer
from bench.prepare import run_once
from bench.servers import ROOT, Capacity, Server, python, uvicorn

PORT = 18485
BUILDER = "onnxruntime_genai.models.builder"


def directory() -> Path:
    """The directory of the builder's graph."""
    return plain.model_directory().with_suffix(".genai")


def prepare() -> None:
    """Has the builder make int4 blocks of 32 from the plain model."""
    plain.prepare()
    run_once(directory() / "model.onnx", builder(plain.model_directory(), directory()))


def builder(source: Path, target: Path) -> tuple[str, ...]:
    """The command that makes a graph in int4 of a folder of a model."""
    command = ("-m", BUILDER, "-m", str(source), "-o", str(target))
    options = ("is_symmetric=true", "block_size=32", "accuracy_level=4")
    return python(*command, "-p", "int4", "-e", "cpu", "--extra_options", *options)


def server(capacity: Capacity) -> Server:
    """Has no slots: one generator runs at a time, and other requests wait for it."""
    environ = {
        "PEER_MODEL": str(directory().relative_to(ROOT)),
        "PEER_TOKENIZER": str(plain.model_directory().relative_to(ROOT)),
        "PEER_THREADS": str(capacity.threads),
        "ORT_DISABLE_TELEMETRY": "1",
    }
    return Server("genai", PORT, uvicorn("bench.peers.genai_server:app", PORT), environ)


PEER = Peer(
    "genai",
    "int4 symmetric block 32, onnxruntime-genai's builder; one request at a time",
    server,
    prepare=prepare,
    packages=("onnxruntime-genai", "onnxruntime", "tokenizers", "fastapi", "uvicorn"),
)
