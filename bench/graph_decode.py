"""Measures how fast the exported graph decodes, beside the one of onnxruntime-genai's builder.

    python -m bench.graph_decode [--recipe NAME] [--rounds 11] [--threads N]

Makes both graphs of the recipe's model first, at equal precision, whatever the recipe's own is:
int4, symmetric, round to nearest, block 32, multiplied in int8. Both run on plain ONNX Runtime with
the cache bound once, as past and present. Decode at one row is compared, the graphs taking turns at
every step, so a machine that slows down slows both; the ratio is the median of the steps' own
ratios. Then ours alone is measured at 1, 4 and 8 rows. Where other processes want the CPUs too,
--threads 1 is the steadier figure. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime

from bench.peers.genai import builder
from handlers.cpus import available_cpus
from handlers.engine.session import register_kernels
from model_export.decoder.convert import convert
from model_export.fetch.load import fetch
from model_export.fetch.stand_ins import fill
from model_export.fuse import fuse
from model_export.quantize import quantize
from model_export.recipe import Precision
from model_export.recipe_loader import load_decoder_recipe
from model_export.reporting import console
from model_export.save import save

CAPACITY = 2048
PROMPT = 64
STEPS = 24
EQUAL = Precision("int4", algorithm="symmetric")
"""The builder's: int4, symmetric, block 32."""


class Graph:
    """A decoder graph with its cache: one in the graph contract, or one of the builder's."""

    def __init__(self, path: Path, rows: int, threads: int, like: Graph | None = None) -> None:
        """`like` gives the cache's shapes, which the builder's graph does not say."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        register_kernels(options)
        # The graphs take turns: one's idle threads must not spin on the cores of the other's.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        self.rows, self.length = rows, 0
        inputs = self.session.get_inputs()
        self.is_contract = any(value.name == "query_seqlens" for value in inputs)
        self.binding = self.session.io_binding()
        pasts = [value for value in inputs if value.name.startswith("past_key_values")]
        sizes = {past.name: (past.shape[1], past.shape[3]) for past in pasts}
        self.cache: dict[str, tuple[int, int]] = like.cache if like else sizes
        """Heads and head size of each cache input."""
        for past in pasts:
            buffer = onnxruntime.OrtValue.ortvalue_from_numpy(self._buffer(past))
            self.binding.bind_ortvalue_input(past.name, buffer)
            present = past.name.replace("past_key_values", "present")
            self.binding.bind_ortvalue_output(present, buffer)
        self.vocabulary = self.session.get_outputs()[0].shape[-1]

    def _buffer(self, past: Any) -> np.ndarray:
        """Keys in blocks of 16 positions, where the graph has them so."""
        heads, size = self.cache[past.name]
        places = (CAPACITY // 16, size, 16) if len(past.shape) == 5 else (CAPACITY, size)
        dtype = np.float16 if past.type == "tensor(float16)" else np.float32
        return np.zeros((self.rows, heads, *places), dtype)

    def step(self, tokens: int) -> float:
        """Feed every row `tokens` tokens. Returns the seconds that the call took."""
        self.length += tokens
        ids = np.full((self.rows, tokens), 42, np.int64)
        inputs = self._contract_inputs(ids) if self.is_contract else self._builder_inputs(ids)
        positions = (self.rows,) if self.is_contract else (self.rows, tokens)
        shape = (*positions, self.vocabulary)
        logits = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32)
        self.binding.bind_ortvalue_output("logits", logits)
        start = time.perf_counter()
        for name, array in inputs.items():
            self.binding.bind_cpu_input(name, array)
        self.session.run_with_iobinding(self.binding)
        return time.perf_counter() - start

    def _contract_inputs(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        rows, tokens = ids.shape
        return {
            "input_ids": ids,
            "query_seqlens": np.full(rows, tokens, np.int32),
            "seqlens_k": np.full(rows, self.length - 1, np.int32),
            "logits_indices": np.arange(1, rows + 1, dtype=np.int64) * tokens - 1,
        }

    def _builder_inputs(self, ids: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "input_ids": ids,
            "attention_mask": np.ones((self.rows, self.length), np.int64),
        }

    def decode_round(self) -> float:
        """Median seconds of a decode step, after a prompt of PROMPT tokens."""
        self.length = 0
        self.step(PROMPT)
        return statistics.median(self.step(1) for _ in range(STEPS))

    def prefill_round(self, tokens: int) -> float:
        """Seconds of a prompt of `tokens`."""
        self.length = 0
        return self.step(tokens)


def compare(ours: Path, theirs: Path, rounds: int, threads: int) -> dict[str, float]:
    """Decode and prefill at one row, ours beside theirs. A ratio over 1 is in our favour.

    Where a session's memory lands is worth 10 %: each round loads both anew, in turning order.
    """
    shapes = Graph(ours, 1, threads)
    decode, prefill = [], []
    for number in range(rounds):
        order = (ours, theirs) if number % 2 else (theirs, ours)
        graphs = {path: Graph(path, 1, threads, like=shapes) for path in order}
        for graph in graphs.values():
            graph.decode_round()  # warms up
        seconds = {path: graph.decode_round() for path, graph in graphs.items()}
        decode.append((seconds[ours], seconds[theirs]))
        seconds = {path: graph.prefill_round(512) for path, graph in graphs.items()}
        prefill.append(seconds[theirs] / seconds[ours])
    ratios = [b / a for a, b in decode]
    return {
        "ours_ms": 1000 * statistics.median(a for a, _ in decode),
        "theirs_ms": 1000 * statistics.median(b for _, b in decode),
        "decode_ratio": statistics.median(ratios),
        "decode_ratio_least": min(ratios),
        "decode_ratio_greatest": max(ratios),
        "prefill_ratio": statistics.median(prefill),
    }


def measure(path: Path, rounds: int, threads: int) -> dict[str, float]:
    """Decode milliseconds a step at 1, 4 and 8 rows, and prefill tokens a second."""
    figures = {}
    for rows in (1, 4, 8):
        graph = Graph(path, rows, threads)
        seconds = statistics.median(graph.decode_round() for _ in range(rounds))
        figures[f"decode_ms_{rows}_rows"] = 1000 * seconds
    graph = Graph(path, 1, threads)
    seconds = statistics.median(graph.prefill_round(512) for _ in range(rounds))
    return figures | {"prefill_512_tokens_per_second": 512 / seconds}


def build(name: str, scratch: Path) -> tuple[Path, Path]:
    """The recipe's model as two graphs: ours, and the builder's."""
    report = console()
    recipe = load_decoder_recipe(name)
    loaded = fetch(recipe.source, report)
    fill(loaded.model)
    report("our graph")
    graph = fuse(convert(loaded.model, recipe.export.context_length))
    save(quantize(graph, EQUAL), scratch / "ours")
    report("the builder's graph")
    source = scratch / "source"
    loaded.model.save_pretrained(source)
    loaded.tokenizer.save_pretrained(source)
    return scratch / "ours" / "model.onnx", run_builder(source, scratch / "theirs")


def run_builder(source: Path, directory: Path) -> Path:
    """onnxruntime-genai's builder, at the precision of `EQUAL`, on a folder of a model."""
    done = subprocess.run(builder(source, directory), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"onnxruntime-genai's builder failed (make bench installs it):\n{done.stderr}")
    return directory / "model.onnx"


def main() -> None:
    """Parse the command line, build, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--recipe", default="smollm2-135m", help="where the model comes from")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--threads", type=int, default=available_cpus())
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        ours, theirs = build(options.recipe, Path(scratch))
        figures = compare(ours, theirs, options.rounds, options.threads)
        figures |= measure(ours, options.rounds, options.threads)
    for figure, value in figures.items():
        print(f"{figure:32} {value:10.3f}")
    print(json.dumps({figure: round(value, 4) for figure, value in figures.items()}))


if __name__ == "__main__":
    main()
