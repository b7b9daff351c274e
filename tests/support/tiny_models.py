"""Tiny random models of every supported architecture, and complete artefacts of them.

Each has a few thousand weights, drawn wide enough that greedy answers wander instead of
repeating one id, and the features that make its family different: grouped heads, sliding
windows shorter than the tests' prompts, soft caps, two rotary bases, layers without any.
The tokenizer is a real byte-level BPE, trained on the spot.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.smollm3.configuration_smollm3 import SmolLM3Config

from tests.support.tiny_hybrid import make_hybrid
from tests.support.tiny_tokenizers import (
    END_OF_TEXT,
    IM_END,
    VOCABULARY,
)

CONTEXT_LENGTH = 256

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_LENGTH,
    "initializer_range": 0.3,
    "bos_token_id": END_OF_TEXT,
    "eos_token_id": IM_END,
    "pad_token_id": END_OF_TEXT,
    "attention_dropout": 0.0,
}


def _gpt2() -> GPT2Config:
    return GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=64,
        n_layer=3,
        n_head=4,
        n_positions=CONTEXT_LENGTH,
        initializer_range=0.3,
        bos_token_id=END_OF_TEXT,
        eos_token_id=IM_END,
    )


FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_COMMON, tie_word_embeddings=True),
    "qwen2": lambda: Qwen2Config(**_COMMON),
    "qwen3": lambda: Qwen3Config(**_COMMON, head_dim=32),
    "mistral": lambda: MistralConfig(**_COMMON, sliding_window=12),
    "gemma2": lambda: Gemma2Config(
        **_COMMON,
        head_dim=32,
        sliding_window=12,
        query_pre_attn_scalar=24,
        attn_logit_softcapping=20.0,
        final_logit_softcapping=10.0,
    ),
    "gemma3": lambda: Gemma3TextConfig(
        **_COMMON,
        head_dim=32,
        sliding_window=12,
        query_pre_attn_scalar=24,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_scaling={"rope_type": "linear", "factor": 4.0},
    ),
    "phi3": lambda: Phi3Config(**_COMMON, sliding_window=None),
    "phi3-partial": lambda: Phi3Config(
        **_COMMON | {"num_attention_heads": 2, "num_key_value_heads": 1},
        partial_rotary_factor=0.5,
        sliding_window=20,
    ),
    "phi3-longrope": lambda: Phi3Config(
        **_COMMON,
        original_max_position_embeddings=CONTEXT_LENGTH,
        rope_scaling={
            "type": "longrope",
            "short_factor": [1.0 + 0.1 * n for n in range(8)],
            "long_factor": [2.0 + 0.1 * n for n in range(8)],
        },
    ),
    "smollm3": lambda: SmolLM3Config(**_COMMON, no_rope_layers=[1, 0, 1], use_sliding_window=False),
    "gpt2": _gpt2,
    "hybrid": lambda: LlamaConfig(**_COMMON),
}

SAVED = tuple(family for family in FAMILIES if family != "hybrid")
"""Those that transformers can load again: the hybrid's recurrent layer is of the tests' own."""

# Exports, but with its rotary embedding left in the graph: the kernel turns multiples of 16.
UNFUSED: dict[str, Callable[[], PretrainedConfig]] = {
    "phi3-odd": lambda: Phi3Config(**_COMMON, partial_rotary_factor=0.5, sliding_window=20),
}


def tiny_model(family: str) -> PreTrainedModel:
    """A random float32 model in evaluation mode, the same at every call."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        (FAMILIES | UNFUSED)[family](),
        attn_implementation="eager",  # transformers' SDPA leaves out Gemma 2's soft cap
    )
    if family == "hybrid":
        make_hybrid(model)
    with torch.no_grad():  # biases and norms start as zeros and ones, which would hide mistakes
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
        if family.startswith("gemma"):  # which multiplies it by sqrt(hidden_size), and echoes
            model.get_parameter("model.embed_tokens.weight").mul_(0.1)
    model.eval()
    return model
