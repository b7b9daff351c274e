"""optimum's ORTModelForCausalLM behind the plain server: ONNX Runtime in torch's place.

Exported and quantized by optimum's own command line, as its documentation shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

from bench.peers import plain
from bench.peers.peer import Peer
from bench.prepare import run_once
from bench.servers import python

PACKAGES = ("optimum", "optimum-onnx", "onnxruntime", *plain.PACKAGES)
OPTIMUM = str(Path(sys.executable).parent / "optimum-cli")


def directory(precision: str) -> Path:
    """The directory of the exported model, which follows the plain one, and so the recipe."""
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


FP32 = Peer(
    "optimum",
    "fp32, optimum's stock export, by ORTModelForCausalLM",
    lambda capacity: plain.server_of("optimum", 18483, directory("fp32"), capacity),
    prepare=export,
    packages=PACKAGES,
)
INT8 = Peer(
    "optimum-int8",
    "int8, optimum's stock dynamic quantization, by ORTModelForCausalLM",
    lambda capacity: plain.server_of("optimum-int8", 18484, directory("int8"), capacity),
    prepare=quantize,
    packages=PACKAGES,
)
