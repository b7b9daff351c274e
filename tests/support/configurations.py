"""The sizes that the config.json of each shipped recipe's model has, without the hub.

The figures are those of the pinned revisions, as public texts quote them; keys that only training
or sampling reads are left out. `PARAMETERS` are what the models' publishers count.
"""

from __future__ import annotations

from typing import Any

import transformers
from transformers import AutoConfig, PretrainedConfig

from model_export.recipe import DecoderRecipe, EncoderRecipe, HubSource
from model_export.recipe_loader import load_recipe, shipped_recipes
from model_export.sizing.dry_run import fetch_config
from tests.support.reports import ignore

_BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}
_SMOLLM2: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 49152,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
_GEMMA3: dict[str, Any] = {
    "model_type": "gemma3_text",
    "vocab_size": 262144,
    "head_dim": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "query_pre_attn_scalar": 256,
    "sliding_window": 512,
    "max_position_embeddings": 32768,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
}

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "bge-small-en-v1.5": _BERT | {"num_hidden_layers": 12},
    "distilbert-sst-2": {
        "model_type": "distilbert",
        "vocab_size": 30522,
        "dim": 768,
        "hidden_dim": 3072,
        "n_layers": 6,
        "n_heads": 12,
        "max_position_embeddings": 512,
    },
    "gemma-3-1b": _GEMMA3
    | {"hidden_size": 1152, "intermediate_size": 6912, "num_hidden_layers": 26},
    "gemma-3-270m": _GEMMA3
    | {"hidden_size": 640, "intermediate_size": 2048, "num_hidden_layers": 18},
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": 50257,
        "n_embd": 768,
        "n_layer": 12,
        "n_head": 12,
        "n_positions": 1024,
    },
    "llama-3.2-1b": {
        "model_type": "llama",
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 32.0,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
        },
        "tie_word_embeddings": True,
    },
    "ms-marco-minilm-l6-v2": _BERT | {"num_hidden_layers": 6, "num_labels": 1},
    "phi-4-mini": {
        "model_type": "phi3",
        "vocab_size": 200064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "partial_rotary_factor": 0.75,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        # 48 factors each, half of the 96 turned values of a head; sizes do not depend on them.
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48},
        "sliding_window": 262144,
        "tie_word_embeddings": True,
        "bos_token_id": 199999,
        "eos_token_id": 200020,
        "pad_token_id": 199999,
    },
    "qwen2.5-0.5b": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "rope_theta": 1000000.0,
        "tie_word_embeddings": True,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151936,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rope_theta": 1000000,
        "tie_word_embeddings": True,
    },
    # Qwen3 0.6B's shape without the rows that only pad its vocabulary: 151,669 as vLLM's example
    # says, which make up MTEB's count of the parameters.
    "qwen3-reranker-0.6b": {
        "model_type": "qwen3",
        "vocab_size": 151669,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 40960,
        "rope_theta": 1000000,
        "tie_word_embeddings": True,
    },
    "qwen3.5-0.8b": {
        "model_type": "qwen3_5_text",
        "vocab_size": 248320,
        "hidden_size": 1024,
        "intermediate_size": 3584,
        "num_hidden_layers": 24,
        "num_attention_heads": 8,
        "num_key_value_heads": 2,
        "head_dim": 256,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
        "max_position_embeddings": 262144,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10000000.0,
            "partial_rotary_factor": 0.25,
            "mrope_interleaved": True,
            "mrope_section": [11, 11, 10],
        },
        "tie_word_embeddings": True,
    },
    "smollm2-1.7b": _SMOLLM2
    | {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 24,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "rope_theta": 130000,
    },
    "smollm2-360m": _SMOLLM2
    | {
        "hidden_size": 960,
        "intermediate_size": 2560,
        "num_hidden_layers": 32,
        "num_attention_heads": 15,
        "num_key_value_heads": 5,
        "rope_theta": 100000,
    },
}

PARAMETERS = {
    "all-minilm-l6-v2": 22_713_216,
    "bge-small-en-v1.5": 33_360_000,
    "distilbert-sst-2": 66_955_010,
    "gemma-3-1b": 999_885_952,
    "gemma-3-270m": 268_098_176,
    "gpt2": 124_439_808,
    "llama-3.2-1b": 1_235_814_400,
    "ms-marco-minilm-l6-v2": 22_713_601,
    "phi-4-mini": 3_836_021_760,
    "qwen2.5-0.5b": 494_032_768,
    "qwen3-0.6b": 596_049_920,
    "qwen3-reranker-0.6b": 595_776_512,
    "qwen3.5-0.8b": 752_393_024,
    "smollm2-1.7b": 1_711_376_384,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
}

_FLOAT32 = ("bge-small-en-v1.5", "distilbert-sst-2", "gpt2", "ms-marco-minilm-l6-v2")
"""Recipes whose models are published in float32; the others on a hub are in bfloat16."""
DOWNLOADS = {name: PARAMETERS[name] * (4 if name in _FLOAT32 else 2) for name in CONFIGURATIONS} | {
    "all-minilm-l6-v2": 90_868_376,  # the files in the packages
    "gpt2": 4 * (PARAMETERS["gpt2"] + 12 * 1024**2),  # its causal masks are among the weights
    "smollm2-135m": 98_362_432,
    "qwen3-0.6b": 2 * (PARAMETERS["qwen3-0.6b"] + 151_936 * 1024),  # its tied head is stored twice
    "qwen3.5-0.8b": 1_746_942_600,  # the file, with a vision tower
}
"""Bytes of the weights that an export reads."""


def exportable() -> list[str]:
    """The shipped recipes that take the installed transformers."""
    installed = int(transformers.__version__.partition(".")[0])
    recipes = [load_recipe(name) for name in shipped_recipes()]
    return [recipe.name for recipe in recipes if recipe.export.transformers in {None, installed}]


def shipped(name: str) -> tuple[DecoderRecipe | EncoderRecipe, PretrainedConfig]:
    """A shipped recipe, and its model's configuration: from here, or out of its package."""
    recipe = load_recipe(name)
    if isinstance(recipe.source, HubSource):
        fields = dict(CONFIGURATIONS[name])
        config: PretrainedConfig = AutoConfig.for_model(fields.pop("model_type"), **fields)
        return recipe, config
    return recipe, fetch_config(recipe.source, ignore)
