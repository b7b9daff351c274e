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
LOGITS_INDICES = "logits_indices"
"""int64 [logits]: flat positions, row * sequence + column, whose logits are wanted."""
LOGITS = "logits"
"""float32 [logits, vocabulary]."""

BATCH = "batch"
SEQUENCE = "sequence"
CAPACITY = "capacity"
BLOCKS = "blocks"
BLOCK_POSITIONS = 16
"""Positions whose keys lie side by side: a vector's lanes."""
LOGITS_COUNT = "logits"

CONTROL_INPUTS = (
    INPUT_IDS,
    QUERY_SEQLENS,
    SEQLENS_K,
    LOGITS_INDICES,
)


def past_names(layers: int) -> list[str]:
    """The cache inputs, key before value: float32, or float16 in a quantised graph.

    Keys [batch, kv_heads, blocks, head_dim, BLOCK_POSITIONS], values [batch, kv_heads, capacity,
    head_dim]; in the trace, before fuse/own_attention.py, keys are as values.
    """
    return [f"past_key_values.{layer}.{kind}" for layer in range(layers) for kind in _KINDS]


def present_names(layers: int) -> list[str]:
    """The cache outputs: the same buffers, in the same order."""
    return [f"present.{layer}.{kind}" for layer in range(layers) for kind in _KINDS]


def is_cache(name: str) -> bool:
    """Whether an input or an output of this name is a part of the cache."""
    return name.startswith(("past_key_values.", "present."))


_KINDS = ("key", "value")
