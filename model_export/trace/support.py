"""Refuses what the export cannot express, by what can be seen without a trace and without weights.

Some models change with the length of the sequence or with a token's position, which a trace
freezes: their graph is true up to where the first change comes, and the context may not be longer.
"""

from __future__ import annotations

import inspect
from typing import Any

from transformers import PretrainedConfig, PreTrainedModel

from model_export.reporting import ExportError
from model_export.trace.patches import EXPERTS_INTERFACE_EXISTS, ROPES_BY_LENGTH, optimum_patches
from model_export.trace.recurrent import recurs_by_functions
from model_export.trace.transformers5_only import pointing_to_transformers_5

STATELESS = {"mlp", "moe"}
"""Kinds of layers that keep nothing from step to step."""
RECURRENT = {"conv", "hybrid", "linear_attention", "mamba", "recurrent"}
"""Kinds of layers with a state of fixed size."""
_KEYS_AND_VALUES = {"attention", "full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers whose only state is keys and values."""
_EXPERTS_OF_ALL = {"Llama4TextExperts"}
"""Experts that take every token, weighted by their router, so that a trace freezes no choice."""


def check_exportable(model: PreTrainedModel, context_length: int) -> None:
    """Raises ExportError, naming the architecture, for what no trace could express."""
    _check_architecture(model)
    config, name = model.config, type(model).__name__
    limit = getattr(config, "max_position_embeddings", None)
    if context_length < 2 or (limit is not None and context_length > limit):
        raise ExportError(
            f"context_length is {context_length}, but {name} has positions for 2 to {limit}."
        )
    _check_length_limits(model, context_length)
    if not getattr(config, "scale_attn_weights", True) or getattr(
        config, "scale_attn_by_inverse_layer_idx", False
    ):
        raise ExportError(
            f"{name} scales its attention in a way that transformers' attention interface does "
            f"not pass on (scale_attn_weights, scale_attn_by_inverse_layer_idx), so it cannot be "
            f"exported."
        )


def _check_architecture(model: PreTrainedModel) -> None:
    config, name = model.config.get_text_config(), type(model).__name__
    if model.config.is_encoder_decoder or model.get_output_embeddings() is None:
        raise ExportError(
            f"{name} ({model.config.model_type}) is not a decoder for text generation, so it "
            f"cannot be exported as one."
        )
    _refuse_layers(model, config)
    if "position_ids" not in inspect.signature(model.forward).parameters:
        raise ExportError(
            f"{name} takes no position_ids: its positions are biases on the attention (ALiBi), in "
            f"a recurrent state or counted from one length for all rows, so it cannot be exported."
        )
    if _routes(model) and not EXPERTS_INTERFACE_EXISTS and not optimum_patches(model):
        with pointing_to_transformers_5(model):
            raise ExportError(
                f"{name} chooses experts by the values of its tokens, which a trace would freeze "
                f"with transformers 4, so it cannot be exported."
            )


def _refuse_layers(model: PreTrainedModel, config: PretrainedConfig) -> None:
    """Refuses layers of an unknown kind, and recurrent ones that trace/recurrent.py cannot replace.

    transformers 4 has `layers_block_type` in the configurations of RecurrentGemma and Jamba.
    """
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None)
    others = set(kinds or ()) - _KEYS_AND_VALUES - STATELESS
    unknown = sorted(others - RECURRENT)
    if unknown:
        raise ExportError(
            f"{type(model).__name__} has layers of the kind {', '.join(unknown)}, which the export "
            f"does not know, so it cannot be exported."
        )
    if others and not recurs_by_functions(model):
        with pointing_to_transformers_5(model):
            raise ExportError(
                f"{type(model).__name__} has layers of the kind {', '.join(sorted(others))}, which "
                f"carry a state from token to token in the place of keys and values, so it cannot "
                f"be exported."
            )


def _routes(model: PreTrainedModel) -> bool:
    experts = [module.experts for module in model.modules() if hasattr(module, "experts")]
    return any(type(each).__name__ not in _EXPERTS_OF_ALL for each in experts)


def _check_length_limits(model: PreTrainedModel, context_length: int) -> None:
    """Refuses a context in which the model changes with the length."""
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
    """Refuses more than a chunk of Llama 4's local layers: only the first is a causal window."""
    chunked = "chunked_attention" in (getattr(config, "layer_types", None) or ())
    size = getattr(config, "attention_chunk_size", None)
    if chunked and size is not None and context_length > size:
        raise ExportError(
            f"{name} attends within chunks of {size} tokens, which GroupQueryAttention cannot "
            f"express: set context_length to {size} or less."
        )


def _check_temperature(config: PretrainedConfig, name: str, context_length: int) -> None:
    """Refuses positions from which Llama 4 scales queries: up to floor_scale the factor is 1."""
    scales = getattr(config, "attn_temperature_tuning", False) and not all(config.no_rope_layers)
    if scales and context_length >= config.floor_scale:
        raise ExportError(
            f"{name} scales its queries by their position from token {config.floor_scale} on, and "
            f"counts it from one length for all rows: set context_length to less than "
            f"{config.floor_scale}."
        )
