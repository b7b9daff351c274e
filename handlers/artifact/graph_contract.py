"""The names and sizes of both graphs' inputs and outputs, as exporter and engine agree on them.

Every decoder artefact has one shape and every encoder artefact the other, for all architectures:
docs/graph.md has the tables. model_export/ writes the graphs and its passes keep the
names; handlers/engine/session.py and handlers/encoder/session.py bind them.
"""

from __future__ import annotations

from typing import Literal

# Of both graphs.
INPUT_IDS = "input_ids"
"""int64 [batch, sequence], each row right-padded."""
LOGITS = "logits"
"""A decoder's: float32 [logits, vocabulary]. A classifier's: float32 [batch, labels]."""
BATCH = "batch"
SEQUENCE = "sequence"

# A decoder's.
QUERY_SEQLENS = "query_seqlens"
"""int32 [batch]: the valid tokens of each row, 0 for an idle row whose cache stays untouched."""
SEQLENS_K = "seqlens_k"
"""int32 [batch]: tokens in each row's cache after the call, less one."""
LOGITS_INDICES = "logits_indices"
"""int64 [logits]: flat positions, row * sequence + column, whose logits are wanted."""
CONTROL_INPUTS = (INPUT_IDS, QUERY_SEQLENS, SEQLENS_K, LOGITS_INDICES)
"""All inputs of a decoder that are not its cache."""

CAPACITY = "capacity"
BLOCKS = "blocks"
LOGITS_COUNT = "logits"

KEY_BLOCK = 16
"""Positions whose keys lie side by side, one in each lane of a vector: kernels/attention.h."""

CacheKind = Literal["key", "value", "convolution", "recurrent"]
"""The kinds of state that a layer keeps from step to step, in the order of the graph's inputs.

key, value      a row for each position: float32, or float16 in a quantised graph. Keys [batch,
                kv_heads, blocks, head_dim, KEY_BLOCK], values [batch, kv_heads, capacity,
                head_dim]; in the trace, before fuse/kindling_attention.py, keys are as values
convolution     the last inputs of a short convolution: float32 [batch, width - 1, channels]
recurrent       a state of fixed size: float32 [batch, heads, key_size, value_size]
"""
BY_POSITION: tuple[CacheKind, ...] = ("key", "value")

# Without token_type_ids where the model has no segments. One output: EMBEDDINGS or LOGITS.
ATTENTION_MASK = "attention_mask"
"""int64 [batch, sequence]: 1 for a token, 0 for padding."""
TOKEN_TYPE_IDS = "token_type_ids"  # noqa: S105  (a name of transformers', no secret)
"""int64 [batch, sequence]: the segment of each token."""
EMBEDDINGS = "embeddings"
"""float32 [batch, dimensions]."""

_KEYS_AND_VALUES = "past_key_values."
_STATES = "past_states."
_PRESENT = {_KEYS_AND_VALUES: "present.", _STATES: "present_states."}
"""How the names of cache inputs begin, and those of the matching outputs."""


def past_name(layer: int, kind: CacheKind) -> str:
    """Returns the name of the input that holds what `layer` keeps."""
    return f"{_KEYS_AND_VALUES if kind in BY_POSITION else _STATES}{layer}.{kind}"


def is_past(name: str) -> bool:
    """Tells whether an input of this name belongs to the cache."""
    return name.startswith(tuple(_PRESENT))


def present_of(past: str) -> str:
    """Returns the name of the output that is the same buffer as the cache input `past`."""
    beginning = next(beginning for beginning in _PRESENT if past.startswith(beginning))
    return past.replace(beginning, _PRESENT[beginning], 1)


def present_name(layer: int, kind: CacheKind) -> str:
    """Returns the name of the output that holds what `layer` keeps."""
    return present_of(past_name(layer, kind))


def layer_of(name: str) -> int | None:
    """Returns the layer whose cache an output of this name holds, None for another output."""
    beginning, dot, rest = name.partition(".")
    return int(rest.partition(".")[0]) if beginning + dot in _PRESENT.values() else None


def is_by_position(name: str) -> bool:
    """Tells whether an input or an output of this name holds keys or values."""
    return name.startswith((_KEYS_AND_VALUES, _PRESENT[_KEYS_AND_VALUES]))
