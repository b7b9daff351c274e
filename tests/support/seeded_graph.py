"""A graph of quantised matrices out of nothing, and a process that is killed while it is saved.

As `python -m tests.support.seeded_graph DIRECTORY PARTS` it writes so many parts and then hangs.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from model_export.lazy_tensors import WeightTensor
from model_export.quantize.quantized_tensors import quantized_tensors
from model_export.save import save
from model_export.weights import Floats, TransposedWeight, Weight

MATRICES = 6
SHAPE = (2056, 1024)
"""Two parts and a bit."""
PARTS_OF_ONE = 3


@dataclass(frozen=True)
class SeededWeight:
    """Random rows, which are drawn again whenever they are read; `on_read` hears of it."""

    seed: int
    shape: tuple[int, ...]
    on_read: Callable[[], None]

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        self.on_read()
        drawn: Floats = np.random.default_rng(self.seed).random(self.shape, np.float32)
        return drawn[start:stop]


def seeded_graph(on_read: Callable[[], None] = lambda: None) -> ir.Model:
    """Matrices of 4 and 8 bits, then a float one, a transposed one, and an array."""
    tensors: list[ir.TensorProtocol] = []
    weights: list[Weight] = [SeededWeight(seed, SHAPE, on_read) for seed in range(MATRICES)]
    for weight in weights[2:]:
        bits = 4 if len(tensors) % 2 else 8
        tensors += [each for each in quantized_tensors(weight, bits, 32, "affine") if each]
    tensors += [WeightTensor(weights[0]), WeightTensor(TransposedWeight(weights[1]))]
    tensors.append(ir.tensor(np.arange(1000, dtype=np.int64)))
    values = []
    for number, tensor in enumerate(tensors):
        tensor.name = f"tensor{number}"
        value = ir.Value(name=tensor.name, const_value=tensor)
        value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
        values.append(value)
    graph = ir.Graph([], values, nodes=[], initializers=values, opset_imports={"": 20}, name="g")
    return ir.Model(graph, ir_version=10)


def _save_and_hang(directory: Path, parts: int) -> None:
    count = itertools.count()

    def on_read() -> None:
        if next(count) == parts:
            sys.stdout.write("hangs\n")
            sys.stdout.flush()
            time.sleep(600)

    save(seeded_graph(on_read), directory, threads=1)


if __name__ == "__main__":
    _save_and_hang(Path(sys.argv[1]), int(sys.argv[2]))
