"""The names of the decoder graph's inputs and outputs (docs/graph.md has the table).

Every decoder artefact has this one shape, whatever its architecture. convert/ writes it,
the passes and quantize/ keep it, handlers/engine/session.py binds it.
"""

from __future__ import annotations

from typing import Literal

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

Kind = Literal["key", "value", "convolution", "recurrent"]
"""What a layer keeps from step to step, in the order of the graph's inputs.

key, value      a row for each position: float32, or float16 in a quantised graph. Keys [batch,
                kv_heads, blocks, head_dim, BLOCK_POSITIONS], values [batch, kv_heads, capacity,
                head_dim]; in the trace, before fuse/own_attention.py, keys are as values
convolution     the last inputs of a short convolution: float32 [batch, width - 1, channels]
recurrent       a state of fixed size: float32 [batch, heads, key_size, value_size]
"""
BY_POSITION: tuple[Kind, ...] = ("key", "value")


def past_name(layer: int, kind: Kind) -> str:
    """The input that holds what `layer` keeps."""
    return f"{_past(kind)}.{layer}.{kind}"


def present_name(layer: int, kind: Kind) -> str:
    """The output for it, which is the same buffer."""
    return f"{_PRESENT[_past(kind)]}.{layer}.{kind}"


def layer_of(name: str) -> int | None:
    """The layer whose present state an output of this name holds, None for another output."""
    beginning, _, rest = name.partition(".")
    return int(rest.partition(".")[0]) if beginning in _PRESENT.values() else None


def is_by_position(name: str) -> bool:
    """Whether an input or an output of this name holds keys or values."""
    return name.startswith((f"{_KEYS_AND_VALUES}.", f"{_PRESENT[_KEYS_AND_VALUES]}."))


def _past(kind: Kind) -> str:
    return _KEYS_AND_VALUES if kind in BY_POSITION else _STATES


_KEYS_AND_VALUES = "past_key_values"
_STATES = "past_states"
_PRESENT = {_KEYS_AND_VALUES: "present", _STATES: "present_states"}
