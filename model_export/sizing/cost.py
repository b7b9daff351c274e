"""Computes what an export takes of the machine that makes it: memory and disk.

Pure arithmetic on an Outline. A decoder is never in memory whole: its peak is that of one step. The
constants are fitted to exports that were watched; docs/recipes.md has predicted and measured.
"""

from __future__ import annotations

from dataclasses import dataclass

from model_export.decoder.calibration import CALIBRATION_TOKENS
from model_export.decoder.logits import ROWS
from model_export.recipe import Precision
from model_export.sizing.footprint import (
    FLOAT32,
    TOKENIZER_BYTES_PER_ENTRY,
    Outline,
    Weights,
    weights_of,
)
from model_export.verify.drift import CHUNK, WINDOW

WINDOWS = 7
"""Windows of the held-out half of the evaluation text: 1,700 tokens in most vocabularies."""
TOKENS = WINDOWS * WINDOW
CALIBRATION_WINDOWS = CALIBRATION_TOKENS // WINDOW
"""Windows that go along where the precision is calibrated."""
LONGEST = 1024
"""Tokens of the longest text that an encoder's reference reads."""
EXPORTER_BYTES = 600_000_000
"""torch, transformers and its tokenizer."""
KEPT_BYTES = 120_000_000
"""Of layers that were computed, what malloc does not give back."""
LAYER_BYTES = 5_000_000
"""The nodes of a traced layer."""
VERIFIER_BYTES = 75_000_000
"""The verifying process: interpreter, libraries, two sessions without their weights."""
LOGITS = 3
"""Arrays of ROWS logits: as computed, and what the model makes of them while it scales or caps."""
COMPARED = 3
"""Arrays of CHUNK logits while two graphs are compared: both graphs', and one in the session."""
STORED = 2
"""Bytes of a value in the source's file, which lie beside its float32 while a weight is read."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Bytes that an export takes, at its peak."""

    memory: int
    """Of both processes together, mapped files included."""
    artefact: int
    scratch: int
    """Of disk beside the artefact, given back at the end: logits, the fp32 graph, a plan."""

    @property
    def disk(self) -> int:
        """Returns the bytes of disk, all in all."""
        return self.artefact + self.scratch


def cost_of(outline: Outline, precision: Precision) -> Cost:
    """Computes the cost of an export."""
    weights = weights_of(outline, precision)
    if outline.layers is None:
        return _cost_of_encoder(outline, weights)
    exporter, layers = EXPORTER_BYTES + KEPT_BYTES, outline.layers
    compared = 2 * WINDOWS if precision.is_searched else WINDOWS
    windows = compared + (CALIBRATION_WINDOWS if precision.is_calibrated else 0)
    memory = max(
        exporter + layers.cut * FLOAT32,
        exporter + _reference(outline, layers.largest, windows),
        exporter + layers.count * LAYER_BYTES + _verifier(outline, weights, layers.cut),
    )
    scratch = _logits(outline, compared * WINDOW) + layers.cut * FLOAT32
    if precision.is_searched:
        scratch += weights.total  # a plan that holds, while a smaller one is measured
    return Cost(memory, weights.total, scratch)


def _cost_of_encoder(outline: Outline, weights: Weights) -> Cost:
    """Computes the cost of a model that is in memory up to the end."""
    model = outline.parameters * FLOAT32
    memory = (
        EXPORTER_BYTES
        + model
        + max(
            _activations(outline, 1, LONGEST),
            _verifier(outline, weights, outline.parameters),
        )
    )
    return Cost(memory, weights.total, scratch=model)


def _reference(outline: Outline, layer: int, windows: int) -> int:
    """Returns the most of: reading the embedding, a layer over all windows, and the head."""
    table = outline.vocabulary * outline.width
    states = windows * WINDOW * outline.width
    return max(
        table * (FLOAT32 + STORED),
        layer * FLOAT32 + _activations(outline, windows, WINDOW),
        (table + states) * FLOAT32 + LOGITS * _logits(outline, ROWS),
    )


def _activations(outline: Outline, rows: int, length: int) -> int:
    """Returns what a layer computes of `rows` texts of `length` tokens."""
    tokens = rows * length
    scores = rows * outline.heads * length * length
    attention = 8 * tokens * outline.width + 3 * scores
    mlp = 4 * tokens * outline.width + 3 * tokens * outline.inner
    return max(attention, mlp) * FLOAT32


def _verifier(outline: Outline, weights: Weights, exact: int) -> int:
    """Returns what the verifying process takes: the fp32 graph's gate, then that of drift."""
    gates = max(
        exact * FLOAT32 * 2,  # mapped, and packed for its products
        weights.total + COMPARED * _logits(outline, CHUNK),
    )
    return VERIFIER_BYTES + outline.vocabulary * TOKENIZER_BYTES_PER_ENTRY + gates


def _logits(outline: Outline, rows: int) -> int:
    return rows * outline.vocabulary * FLOAT32
