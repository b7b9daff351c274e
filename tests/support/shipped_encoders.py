"""The sizes that the config.json of each shipped encoder has, without the hub.

As in shipped_decoders.py. Qwen3-Embedding and Qwen3-Reranker are decoders by their architecture.
"""

from __future__ import annotations

from typing import Any

from tests.support.shipped_decoders import QWEN3_0_6B

_BERT: dict[str, Any] = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
}

ENCODERS: dict[str, dict[str, Any]] = {
    "bge-m3": {
        "model_type": "xlm-roberta",
        "vocab_size": 250002,
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "max_position_embeddings": 8194,
        "type_vocab_size": 1,
        "pad_token_id": 1,
    },
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
    "ms-marco-minilm-l6-v2": _BERT | {"num_hidden_layers": 6, "num_labels": 1},
    "multilingual-e5-small": _BERT | {"vocab_size": 250037, "num_hidden_layers": 12},
    "nomic-embed-text-v1.5": {
        "model_type": "nomic_bert",
        "vocab_size": 30528,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "max_position_embeddings": 2048,
        "type_vocab_size": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0},
    },
    # Both without the rows that only pad Qwen3's vocabulary, as MTEB's counts of parameters say.
    "qwen3-embedding-0.6b": QWEN3_0_6B | {"vocab_size": 151669, "max_position_embeddings": 32768},
    "qwen3-reranker-0.6b": QWEN3_0_6B | {"vocab_size": 151669},
}
