"""The families that the walk is over, and a small configuration of each.

A configuration is made from the family's class alone, with every size that it knows made small.
"""

from __future__ import annotations

import inspect
from typing import Any, cast

from transformers import AutoConfig, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from model_export.trace.patches import EXPERTS_INTERFACE_EXISTS

CONTEXT_LENGTH = 128
VOCABULARY = 512

# optimum-onnx 0.1.0's list for text generation; tests/export/test_families.py holds it to that.
OPTIMUM = (
    "arcee",
    "bart",
    "bigbird_pegasus",
    "blenderbot",
    "blenderbot-small",
    "bloom",
    "codegen",
    "cohere",
    "deepseek_v3",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "glm",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gpt_oss",
    "gptj",
    "granite",
    "helium",
    "internlm2",
    "llama",
    "marian",
    "mbart",
    "mistral",
    "mpt",
    "nemotron",
    "olmo",
    "olmo2",
    "opt",
    "pegasus",
    "phi",
    "phi3",
    "qwen2",
    "qwen3",
    "qwen3_moe",
    "smollm3",
    "stablelm",
)
BESIDE = (
    "apertus",
    "bamba",
    "biogpt",
    "bitnet",
    "cohere2",
    "deepseek_v2",
    "diffllama",
    "doge",
    "dots1",
    "ernie4_5",
    "ernie4_5_moe",
    "exaone4",
    "falcon_h1",
    "gemma3n_text",
    "gemma4_text",
    "glm4",
    "glm4_moe",
    "granitemoe",
    "granitemoehybrid",
    "granitemoeshared",
    "hunyuan_v1_dense",
    "jamba",
    "kimi_linear",
    "lfm2",
    "lfm2_moe",
    "llama4_text",
    "mamba",
    "minimax",
    "ministral",
    "ministral3",
    "mixtral",
    "nanochat",
    "nemotron_h",
    "olmo3",
    "olmo_hybrid",
    "olmoe",
    "openai-gpt",
    "persimmon",
    "phimoe",
    "qwen2_moe",
    "qwen3_5_moe_text",
    "qwen3_5_text",
    "qwen3_next",
    "recurrent_gemma",
    "rwkv",
    "seed_oss",
    "starcoder2",
    "vaultgemma",
    "xglm",
)

_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "d_model": 64,
    "intermediate_size": 96,
    "ffn_dim": 96,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": CONTEXT_LENGTH,
    "sliding_window": 12,
    "initializer_range": 0.3,
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "encoder_layers": 2,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 96,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "num_experts_per_token": 2,
    "moe_topk": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "depth": 2,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 24,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}

_GATED_DELTA: dict[str, Any] = {
    "layer_types": ["linear_attention", "full_attention"],
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_SMALL_MROPE: dict[str, Any] = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10_000.0,
        "mrope_section": [3, 3, 2],
        "mrope_interleaved": True,
        "partial_rotary_factor": 1.0,
    }
}
_GRANITE_LAYERS = (
    ["linear_attention", "full_attention"] if EXPERTS_INTERFACE_EXISTS else ["attention"] * 2
)
_MAMBA_2: dict[str, Any] = {
    "mamba_d_ssm": 64,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 24,
    "mamba_n_groups": 2,
}

# What a family needs beside: sizes under names of its own, or that must fit to each other.
_BESIDE: dict[str, dict[str, Any]] = {
    "codegen": {"rotary_dim": 8},
    "deepseek_v2": {"topk_method": "group_limited_greedy"},
    "dots1": {"n_shared_experts": 1},
    "falcon": {"alibi": False},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 12},
    "gptj": {"rotary_dim": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "qwen3_5_moe_text": _GATED_DELTA | _SMALL_MROPE,
    "qwen3_5_text": _GATED_DELTA | _SMALL_MROPE,
    "qwen3_next": _GATED_DELTA,
    "falcon_h1": _MAMBA_2,
    "nemotron_h": {
        "layer_types": ["linear_attention", "moe", "full_attention", "mlp"],
        "num_hidden_layers": 4,
        "mamba_num_heads": 4,
        "mamba_head_dim": 16,
        "ssm_state_size": 24,
        "n_groups": 2,
        "moe_latent_size": None,
    },
    "bamba": _MAMBA_2 | {"attn_layer_indices": [1], "mamba_n_heads": 8},
    "olmo_hybrid": _GATED_DELTA,
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    # As Granite 4.0's small dense models are: with transformers 4 attention in every layer.
    "granitemoehybrid": {
        "layer_types": _GRANITE_LAYERS,
        "num_local_experts": 0,
        "shared_intermediate_size": 96,
        "mamba_n_heads": 8,
        "mamba_d_head": 16,
        "mamba_d_state": 24,
        "mamba_n_groups": 2,
    },
    "llama4_text": {"no_rope_layers": [1, 0], "attention_chunk_size": CONTEXT_LENGTH},
    "mpt": {"n_heads": 4, "n_layers": 2, "max_seq_len": CONTEXT_LENGTH},
    "gemma3n_text": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "activation_sparsity_pattern": [0.0] * 4,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 16,
        "laurel_rank": 8,
    },
    "gemma4_text": {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 16},
    "opt": {"word_embed_proj_dim": 64},
}


def families() -> list[str]:
    """The walk: optimum's list, and what people run beside it. Known to this transformers."""
    return sorted(kind for kind in OPTIMUM + BESIDE if kind in CONFIG_MAPPING)


def small_configuration(kind: str) -> PretrainedConfig:
    """The configuration of one family."""
    return _shrunk(CONFIG_MAPPING[kind], _BESIDE.get(kind, {}))


def _shrunk(config: type[PretrainedConfig], beside: dict[str, Any]) -> PretrainedConfig:
    known = set(inspect.signature(config.__init__).parameters) | set(config.attribute_map)
    known |= set(getattr(config, "__dataclass_fields__", ()))
    sizes = {name: size for name, size in _SMALL.items() if name in known}
    if "qk_rope_head_dim" in known:  # latent attention: heads have a width of their own, and keys
        sizes["num_key_value_heads"] = 4
        sizes.pop("head_dim", None)
    parts = {name: _shrunk(_part(config, name), {}).to_dict() for name in config.sub_configs}
    return config(**sizes | parts | beside)


def _part(config: type[PretrainedConfig], name: str) -> type[PretrainedConfig]:
    """The class of a configuration inside another."""
    part: Any = config.sub_configs[name]
    if part is AutoConfig:  # transformers 5 says beside it which: Gemma 3's vision
        part = CONFIG_MAPPING[cast("Any", config).sub_configs_defaults[name].model_type]
    return cast("type[PretrainedConfig]", part)
