"""Measures what the matrix products of a pass cost by columns: the table of docs/kernels.md.

    python -m bench.columns [--weights int4 ...] [--rows 1 2 4 8] [--threads N] [--than KERNELS.so]

A graph of the products of a 1B Llama alone, with a head of int8 and random weights that no two
nodes share, so that they come from memory. Every number of rows takes its turn in each round, so
that a machine that slows down slows all. Figures are the medians of the rounds' ratios to the first
number of rows. With --than other libraries of kernels take turns with this tree's; their bits must
be the same. One thread is measured by its processor time, which is steadier where other work wants
the cores. LD_PRELOAD=build/bench/avx2.so shows AVX2 alone (bench/avx2.py). The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper

from handlers.cpus import available_cpus
from handlers.engine.session import KERNELS, SPIN_MICROSECONDS

HIDDEN, MLP, LAYERS, VOCABULARY = 2048, 8192, 16, 128256
QKV = 3072
BITS = {"int4": 4, "int5": 5, "int6": 6, "int8": 8, "compact4": 4, "compact5": 5, "compact6": 6}
HEAD = "int8"
BLOCK, LANES = 32, 16
RANDOM_BYTES = 2**24 - 3
"""A prime, so that no two matrices begin at the same of these bytes."""
Turn = tuple[str, int]
"""A library of kernels by its name, and a number of rows."""


class Products:
    """Builds the graph: its nodes, and its weights as external data."""

    def __init__(self, directory: Path, weights: str) -> None:
        self._random = np.random.default_rng(1).bytes(RANDOM_BYTES)
        self._weights, self._used = weights, 0
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self.path = directory / f"{weights}.onnx"
        with self.path.with_suffix(".data").open("wb") as self._data:
            last = "x"
            for layer in range(LAYERS):
                last = self._layer(last, f"{layer}.")
            self._product(last, "y", HIDDEN, VOCABULARY, HEAD)
        self._save()

    def _layer(self, x: str, name: str) -> str:
        """Adds a layer's products, each of which needs the one before it."""
        qkv = self._product(x, name + "qkv", HIDDEN, QKV, self._weights)
        query = self._add("Slice", [qkv, "start", "stop", "axis"], [name + "query"])
        hidden = self._product(query, name + "o", HIDDEN, HIDDEN, self._weights)
        gate = self._product(hidden, name + "gate", HIDDEN, MLP, self._weights)
        up = self._product(hidden, name + "up", HIDDEN, MLP, self._weights)
        both = self._add("Mul", [gate, up], [name + "both"])
        return self._product(both, name + "down", MLP, HIDDEN, self._weights)

    def _product(self, x: str, y: str, inputs: int, outputs: int, weights: str) -> str:
        """Adds a node whose outputs are about as large as its inputs."""
        bits, groups, blocks = BITS[weights], outputs // LANES, inputs // BLOCK
        scale = 1 / np.sqrt(inputs * 4**bits / 12)
        names = [y + ".values", y + ".scales", y + ".offsets"]
        self._store(names[0], TensorProto.UINT8, self._bytes((groups, blocks, 64 * bits)))
        if weights.startswith("compact"):
            self._store(names[1], TensorProto.UINT8, self._bytes((groups, blocks, 32)))
            self._store(names[2], TensorProto.FLOAT16, _halves((groups, 1, LANES), scale))
        else:
            shape = (groups, blocks, LANES)
            self._store(names[1], TensorProto.FLOAT16, _halves(shape, scale))
            if bits < 8:
                zero = -scale * 2 ** (bits - 1)
                self._store(names[2], TensorProto.FLOAT16, _halves(shape, zero))
            else:
                names.pop()
        sizes = {"K": inputs, "N": outputs, "bits": bits, "block_size": BLOCK}
        return self._add("AffineMatMul", [x, *names], [y], domain="kindling", **sizes)

    def _add(self, kind: str, inputs: list[str], outputs: list[str], **attributes: Any) -> str:
        self._nodes.append(helper.make_node(kind, inputs, outputs, **attributes))
        return outputs[0]

    def _bytes(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        count, parts = int(np.prod(shape)), []
        while count:
            part = self._random[self._used : self._used + count]
            self._used = (self._used + len(part)) % RANDOM_BYTES
            count -= len(part)
            parts.append(part)
        return np.frombuffer(b"".join(parts), np.uint8).reshape(shape)

    def _store(self, name: str, kind: int, values: NDArray[Any]) -> None:
        self._data.write(b"\0" * (-self._data.tell() % 4096))
        tensor = TensorProto(name=name, data_type=kind, dims=values.shape)
        tensor.data_location = TensorProto.EXTERNAL
        place = {"location": self.path.with_suffix(".data").name, "offset": self._data.tell()}
        for key, value in (place | {"length": values.nbytes}).items():
            tensor.external_data.add(key=key, value=str(value))
        self._data.write(values.tobytes())
        self._constants.append(tensor)

    def _save(self) -> None:
        for name, value in {"start": 0, "stop": HIDDEN, "axis": 1}.items():
            self._constants.append(helper.make_tensor(name, TensorProto.INT64, [1], [value]))
        graph = helper.make_graph(
            self._nodes,
            "products",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, HIDDEN])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, VOCABULARY])],
            self._constants,
        )
        imports = [helper.make_opsetid("", 20), helper.make_opsetid("kindling", 1)]
        onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=9), self.path)


def _halves(shape: tuple[int, ...], value: float) -> NDArray[np.float16]:
    return np.full(shape, value, np.float16)


class Pass:
    """The graph in one library of kernels."""

    def __init__(self, graph: Path, kernels: Path, threads: int, most_rows: int) -> None:
        self._clock = time.perf_counter if threads > 1 else time.thread_time
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN_MICROSECONDS)
        # Libraries take turns: one's idle threads must not spin on the cores of the other's.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        options.register_custom_ops_library(str(kernels.resolve()))
        self._session = onnxruntime.InferenceSession(graph, options, ["CPUExecutionProvider"])
        self._x = np.random.default_rng(2).normal(size=(most_rows, HIDDEN)).astype(np.float32)
        self._y = np.zeros((most_rows, VOCABULARY), np.float32)

    def seconds(self, rows: int) -> float:
        """Computes one pass over some rows."""
        binding = self._session.io_binding()
        binding.bind_cpu_input("x", self._x[:rows])
        y = onnxruntime.OrtValue.ortvalue_from_numpy(self._y[:rows])
        binding.bind_ortvalue_output("y", y)
        started = self._clock()
        self._session.run_with_iobinding(binding)
        return self._clock() - started

    def bits(self, rows: int) -> bytes:
        """Returns the outputs of a pass."""
        self.seconds(rows)
        return self._y[:rows].tobytes()


def main() -> None:
    """Measures every precision that is asked for, and prints a table."""
    options = _parser().parse_args()
    libraries = {"these": KERNELS} | {path.stem: path for path in options.than}
    found = []
    print("| weights | kernels | ms | " + " | ".join(map(str, options.rows)) + " |")
    print("|---|---|---:|" + "---:|" * len(options.rows), flush=True)
    for weights in options.weights:
        with tempfile.TemporaryDirectory() as directory:
            graph = Products(Path(directory), weights).path
            arguments = (options.threads, max(options.rows))
            passes = {name: Pass(graph, path, *arguments) for name, path in libraries.items()}
        for rows in options.rows:
            if len({each.bits(rows) for each in passes.values()}) > 1:
                sys.exit(f"The libraries' bits differ with {rows} rows.")
        for row in figures(
            measure(passes, options.rows, options.rounds), list(passes), options.rows
        ):
            found.append({"weights": weights, **row})
            cells = " | ".join(f"{ratio:.2f}" for ratio in row["ratios"])
            print(f"| {weights} | {row['kernels']} | {row['ms']} | {cells} |", flush=True)
    print(json.dumps({"benchmark": "columns", "rows": options.rows, "found": found}))


def measure(passes: dict[str, Pass], rows: Sequence[int], rounds: int) -> list[dict[Turn, float]]:
    """Returns the seconds of every turn of each round."""
    return [
        {(name, count): passes[name].seconds(count) for name, count in _turns(passes, rows, number)}
        for number in range(rounds)
    ]


def _turns(passes: dict[str, Pass], rows: Sequence[int], number: int) -> Iterator[Turn]:
    names = list(passes) if number % 2 else list(reversed(passes))
    return ((name, count) for count in rows for name in names)


def figures(
    rounds: list[dict[Turn, float]], names: Sequence[str], rows: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yields a row for each library, and one of ratios between the first and each other."""
    for name in names:
        first = [seconds[name, rows[0]] for seconds in rounds]
        yield {
            "kernels": name,
            "ms": round(1000 * statistics.median(first), 2),
            "ratios": [_ratio(rounds, (name, count), (name, rows[0])) for count in rows],
        }
        if name != names[0]:
            ratios = [_ratio(rounds, (names[0], count), (name, count)) for count in rows]
            yield {"kernels": f"{names[0]} / {name}", "ms": "", "ratios": ratios}


def _ratio(rounds: list[dict[Turn, float]], turn: Turn, base: Turn) -> float:
    return round(statistics.median(seconds[turn] / seconds[base] for seconds in rounds), 3)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--weights", choices=BITS, nargs="+", default=["int4"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6, 7, 8])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, default=available_cpus())
    parser.add_argument("--than", type=Path, nargs="+", default=[], help="other kernels.so")
    return parser


if __name__ == "__main__":
    main()
