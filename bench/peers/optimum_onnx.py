"""optimum's ORTModelForCausalLM behind the plain server: ONNX Runtime in torch's place.

Exported and quantized by optimum's own command line, as its documentation shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.peers import plain
from bench.peers.peer import Peer, run_once
from bench.servers import ROOT, Capacity, Server, python, uvicorn

PACKAGES = ("optimum", "optimum-onnx", "onnxruntime", *plain.PACKAGES)
OPTIMUM = str(Path(sys.executable).parent / "optimum-cli")


def directory(precision: str) -> Path:
    """Of the exported model; it follows the plain one, and so the recipe."""
    return plain.model_directory().with_suffix(f".onnx-{precision}")


def export() -> None:
    """The stock export, fp32, with the key-value cache as inputs and outputs."""
    plain.prepare()
    command = ("-m", "optimum.exporters.onnx", "--model", str(plain.model_directory()))
    target = directory("fp32")
    task = ("--task", "text-generation-with-past")
    run_once(target / "model.onnx", python(*command, *task, str(target)))


def quantize() -> None:
    """The stock dynamic quantization: int8 weights and activations."""
    export()
    target = directory("int8")
    command = (OPTIMUM, "onnxruntime", "quantize", "--onnx_model", str(directory("fp32")))
    run_once(target / "model_quantized.onnx", (*command, "--avx512_vnni", "-o", str(target)))


def _server(precision: str, port: int, capacity: Capacity) -> Server:
    environ = {
        "PEER_MODEL": str(directory(precision).relative_to(ROOT)),
        "OMP_NUM_THREADS": str(capacity.threads),
    }
    name = "optimum" if precision == "fp32" else f"optimum-{precision}"
    return Server(name, port, uvicorn("bench.peers.plain_server:app", port), environ)


FP32 = Peer(
    "optimum",
    "fp32, optimum's stock export, by ORTModelForCausalLM",
    lambda capacity: _server("fp32", 18483, capacity),
    prepare=export,
    packages=PACKAGES,
)
INT8 = Peer(
    "optimum-int8",
    "int8, optimum's stock dynamic quantization, by ORTModelForCausalLM",
    lambda capacity: _server("int8", 18484, capacity),
    prepare=quantize,
    packages=PACKAGES,
)
