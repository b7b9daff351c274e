"""The names of the decoder graph's inputs and outputs (docs/graph.md has the table).

Every decoder artefact has this one shape, whatever its architecture. convert.py writes it,
the passes and quantize.py keep it, handlers/engine/session.py binds it.
"""

from __future__ import annotations

INPUT_IDS = "input_ids"
"""int64 [batch, sequence], each row right-padded."""
QUERY_SEQLENS = "query_seqlens"
"""int32 [batch]: the valid tokens of each row, 0 for an idle row whose cache stays untouched."""
SEQLENS_K = "seqlens_k"
"""int32 [batch]: past + valid - 1 of each row."""
TOTAL_SEQUENCE_LENGTH = "total_sequence_length"
"""int32 []: an upper bound, the capacity of the cache."""
LOGITS_INDICES = "logits_indices"
"""int64 [logits]: flat positions, row * sequence + column, whose logits are wanted."""
LOGITS = "logits"
"""float32 [logits, vocabulary]."""

BATCH = "batch"
SEQUENCE = "sequence"
CAPACITY = "capacity"
LOGITS_COUNT = "logits"

CONTROL_INPUTS = (
    INPUT_IDS,
    QUERY_SEQLENS,
    SEQLENS_K,
    TOTAL_SEQUENCE_LENGTH,
    LOGITS_INDICES,
)


def past_names(layers: int) -> list[str]:
    """The cache inputs, float32 [batch, kv_heads, capacity, head_dim], key before value."""
    return [f"past_key_values.{layer}.{kind}" for layer in range(layers) for kind in _KINDS]


def present_names(layers: int) -> list[str]:
    """The cache outputs: the same buffers, in the same order."""
    return [f"present.{layer}.{kind}" for layer in range(layers) for kind in _KINDS]


_KINDS = ("key", "value")
