"""Drives a graph in the graph contract with plain ONNX Runtime, for the exporter's tests.

Deliberately smaller than handlers.engine and independent of it: a fixed number of rows, a
shared cache bound as past and present, greedy ids only. A test that fails here fails because
of the graph.
"""

from __future__ import annotations

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from handlers.engine.session import KERNELS

Ids = list[int]


class GraphRunner:
    """`rows` sequences beside each other, each with room for `capacity` tokens."""

    def __init__(self, graph: Path, rows: int, capacity: int, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        options.register_custom_ops_library(str(KERNELS))
        self.session = onnxruntime.InferenceSession(
            graph, options, providers=["CPUExecutionProvider"]
        )
        blocks = -(-capacity // 16)
        sizes = {"batch": rows, "capacity": 16 * blocks, "blocks": blocks}
        types = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
        self.lengths = np.zeros(rows, dtype=np.int32)
        self._binding = self.session.io_binding()
        self._buffers = [
            onnxruntime.OrtValue.ortvalue_from_numpy(
                np.zeros([sizes.get(size, size) for size in value.shape], types[value.type])
            )
            for value in self.session.get_inputs()
            if value.name.startswith("past_")
        ]

    def _bind_cache(self) -> None:
        self._binding.clear_binding_outputs()  # else the logits keep the last step's shape
        pasts = [v.name for v in self.session.get_inputs() if v.name.startswith("past_")]
        presents = [v.name for v in self.session.get_outputs() if v.name.startswith("present")]
        self._binding.bind_output("logits", "cpu")
        for past, present, buffer in zip(pasts, presents, self._buffers, strict=True):
            self._binding.bind_ortvalue_input(past, buffer)
            self._binding.bind_ortvalue_output(present, buffer)

    def step(self, chunks: Sequence[Ids]) -> NDArray[np.float32]:
        """Feed each row its chunk, [] leaves it idle. Logits of each busy row's last token."""
        counts = np.array([len(chunk) for chunk in chunks], dtype=np.int32)
        width = int(counts.max())
        ids = np.zeros((len(chunks), width), dtype=np.int64)
        for row, chunk in enumerate(chunks):
            ids[row, : len(chunk)] = chunk
        self.lengths += counts
        busy = np.flatnonzero(counts)
        inputs = {
            "input_ids": ids,
            "query_seqlens": counts,
            "seqlens_k": np.maximum(self.lengths - 1, 0),  # Microsoft's kernel refuses -1
            "logits_indices": busy * width + counts[busy] - 1,
        }
        for name, array in inputs.items():
            self._binding.bind_cpu_input(name, array)
        self._bind_cache()
        self.session.run_with_iobinding(self._binding)
        logits: NDArray[np.float32] = self._binding.get_outputs()[0].numpy()
        return logits

    def greedy(self, prompts: Sequence[Ids], new_tokens: int, chunk: int = 1 << 30) -> list[Ids]:
        """The next ids of each prompt; row n starts n steps after the first one.

        Prompts longer than `chunk` are fed in pieces, beside the others' decoding.
        """
        pending = [list(prompt) for prompt in prompts]
        answers: list[Ids] = [[] for _ in prompts]
        step = 0
        while any(len(answer) < new_tokens for answer in answers):
            chunks = [
                row[:chunk] if n <= step and len(answers[n]) < new_tokens else []
                for n, row in enumerate(pending)
            ]
            logits = iter(self.step(chunks).argmax(axis=-1).tolist())
            for n, fed in enumerate(chunks):
                if fed:
                    self._advance(pending[n], answers[n], len(fed), next(logits))
            step += 1
        return answers

    @staticmethod
    def _advance(pending: Ids, answer: Ids, fed: int, best: int) -> None:
        del pending[:fed]
        if not pending:
            pending.append(best)
            answer.append(best)
