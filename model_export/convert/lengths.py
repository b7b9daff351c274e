"""Up to how many tokens the graph of an architecture is the same.

Some models change with the length of the sequence or with a token's position, which a trace
freezes: their graph is true up to where the first change comes. Called by the package.
"""

from __future__ import annotations

from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from model_export.errors import ExportError

ROPES_BY_LENGTH = ("dynamic", "longrope")
"""Rotary embeddings whose frequencies change with the length of the sequence."""


def check_length(model: PreTrainedModel, context_length: int) -> None:
    """Raises ExportError for what `context_length` tokens would change in the model."""
    config, name = model.config.get_text_config(), type(model).__name__
    _check_rope(model.config, name, context_length)
    _check_chunks(config, name, context_length)
    _check_temperature(config, name, context_length)


def _check_rope(config: PretrainedConfig, name: str, context_length: int) -> None:
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    by_layer = [_rope_kind(each) for each in rope.values() if isinstance(each, dict)]
    if set(by_layer) & set(ROPES_BY_LENGTH):
        raise ExportError(
            f"{name} has layers of a kind whose rotary frequencies change with the length, beside "
            f"others, so it cannot be exported."
        )
    original = rope.get("original_max_position_embeddings") or getattr(
        config,
        "original_max_position_embeddings",
        getattr(config, "max_position_embeddings", None),
    )
    changes = _rope_kind(rope) in ROPES_BY_LENGTH
    if changes and original is not None and context_length > original:
        raise ExportError(
            f"{name} changes its rotary frequencies ({_rope_kind(rope)}) for sequences over "
            f"{original} tokens, which a fixed table cannot express: set context_length to "
            f"{original} or less."
        )


def _rope_kind(rope: dict[str, Any]) -> str | None:
    kind: str | None = rope.get("rope_type", rope.get("type"))
    return kind


def _check_chunks(config: PretrainedConfig, name: str, context_length: int) -> None:
    """Llama 4's local layers see their own chunk of the sequence: the first is causal."""
    chunked = "chunked_attention" in (getattr(config, "layer_types", None) or ())
    size = getattr(config, "attention_chunk_size", None)
    if chunked and size is not None and context_length > size:
        raise ExportError(
            f"{name} attends within chunks of {size} tokens, which GroupQueryAttention cannot "
            f"express: set context_length to {size} or less."
        )


def _check_temperature(config: PretrainedConfig, name: str, context_length: int) -> None:
    """Llama 4's layers without rotary embedding scale their queries, by 1 up to floor_scale."""
    scales = getattr(config, "attn_temperature_tuning", False) and not all(config.no_rope_layers)
    if scales and context_length >= config.floor_scale:
        raise ExportError(
            f"{name} scales its queries by their position from token {config.floor_scale} on, and "
            f"counts it from one length for all rows: set context_length to less than "
            f"{config.floor_scale}."
        )
