"""Compares quantised models with the model in fp32 as gate 3 does (model_export/verify/drift.py).

On the whole evaluation text, where the gate takes the half by which nobody chooses. Ours is run by
the engine that serves. A GGUF file's weights are read back, a tensor at a time, and
transformers computes with them: the same windows of the same ids and every position of them, where
llama.cpp's own tool counts the second half of each window. What is left out is that llama.cpp
rounds what a product reads to 8 bits, as our kernels do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from handlers.engine.session import Session
from model_export.decoder.calibration import InputSquares
from model_export.decoder.logits import record_logits
from model_export.fetch.load import LoadedModel, fetch
from model_export.recipe import GgufSource
from model_export.reporting import Report
from model_export.verify.corpus import evaluation_text
from model_export.verify.drift import WINDOW, Drift, RecordedLogits, compare, windows_of
from model_export.verify.exchange import EncodedText


@dataclass(frozen=True, slots=True)
class Fp32:
    """The model in fp32: its logits on all windows of the evaluation text, in a file."""

    windows: list[list[int]]
    logits: Path
    vocabulary: int

    @classmethod
    def record(
        cls, loaded: LoadedModel, logits: Path, inputs: InputSquares, report: Report
    ) -> Fp32:
        """Computes with transformers, a layer at a time, and writes to the file `logits`.

        `inputs` measures the calibration text in the same pass.
        """
        windows = windows_of(EncodedText.of(evaluation_text(), loaded.tokenizer), WINDOW)
        record_logits(loaded.model, windows, logits, report, inputs)
        return cls(windows, logits, loaded.vocabulary_size)

    def drift_of_graph(self, graph: Path, threads: int) -> Drift:
        """Runs a graph of ours by the engine's session."""
        capacity = max(map(len, self.windows))
        session = Session(graph, threads=threads, slots=1, capacity=capacity)
        return compare(self._recorded(self.logits), session, self.windows).summary()

    def drift_of_gguf(self, file: Path, report: Report) -> Drift:
        """Computes with the weights of a GGUF file; its logits are beside it for a while."""
        logits = file.with_suffix(".logits")
        try:
            record_logits(fetch(GgufSource(file), report).model, self.windows, logits, report)
            said = self._recorded(self.logits), self._recorded(logits)
            return compare(*said, self.windows).summary()
        finally:
            logits.unlink(missing_ok=True)

    def _recorded(self, logits: Path) -> RecordedLogits:
        return RecordedLogits(logits, self.vocabulary)
