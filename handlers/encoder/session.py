"""Runs the encoder's graph in ONNX Runtime.

ONNX Runtime's errors become ArtifactError while loading and EngineFault while running, as the
decoder's session has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.artifact.graph_contract import (
    ATTENTION_MASK,
    EMBEDDINGS,
    INPUT_IDS,
    LOGITS,
    TOKEN_TYPE_IDS,
)
from handlers.engine.session import load_graph
from handlers.errors import ArtifactError, EngineFault

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from handlers.encoder.batching import EncoderBatch

REQUIRED = {INPUT_IDS, ATTENTION_MASK}
OUTPUTS = (EMBEDDINGS, LOGITS)


class EncoderSession:
    """A loaded encoder graph. One thread at a time may run it."""

    def __init__(self, graph: Path, *, threads: int) -> None:
        """Raises ArtifactError when the graph cannot be loaded or breaks the contract."""
        self._ort = load_graph(graph, threads)
        names = {value.name for value in self._ort.get_inputs()}
        outputs = self._ort.get_outputs()
        if names - {TOKEN_TYPE_IDS} != REQUIRED or [each.name in OUTPUTS for each in outputs] != [
            True
        ]:
            raise ArtifactError(
                f"{graph} is not an encoder graph of this version of Kindling: it takes "
                f"{sorted(names)} and gives {sorted(each.name for each in outputs)}. Export the "
                f"model again."
            )
        self._inputs = tuple(sorted(names))
        self.width: int = outputs[0].shape[-1]
        """Length of a row: an embedding's dimensions, or the number of labels."""

    def run(self, batch: EncoderBatch) -> NDArray[np.float32]:
        """Runs one batch: [rows, width]. Raises EngineFault when ONNX Runtime fails."""
        try:
            (rows,) = self._ort.run(None, {name: getattr(batch, name) for name in self._inputs})
        except Exception as error:
            raise EngineFault(f"ONNX Runtime failed: {error}") from error
        made: NDArray[np.float32] = rows
        return made
