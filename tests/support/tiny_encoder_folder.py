"""Tiny random encoders of every family that the tests export, and folders of them as a hub has."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.support.tiny_tokenizers import VOCABULARY, WORD_PIECES, ending_tokenizer, word_piece

POSITIONS = 130
_COMMON: dict[str, Any] = {
    "vocab_size": WORD_PIECES,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.1,
    "pad_token_id": 0,
}
# RoBERTa and its kin count positions from behind the id of their padding.
_ROBERTA = _COMMON | {"pad_token_id": 1, "type_vocab_size": 1}

FAMILIES: dict[str, Callable[[], PretrainedConfig]] = {
    "albert": lambda: transformers.AlbertConfig(**_COMMON, embedding_size=32),
    "bert": lambda: transformers.BertConfig(**_COMMON),
    "deberta-v2": lambda: transformers.DebertaV2Config(
        **_COMMON,
        type_vocab_size=0,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
    ),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=WORD_PIECES,
        dim=64,
        n_layers=2,
        n_heads=4,
        hidden_dim=96,
        max_position_embeddings=POSITIONS,
        initializer_range=0.1,
    ),
    "electra": lambda: transformers.ElectraConfig(**_COMMON, embedding_size=32),
    "modernbert": lambda: transformers.ModernBertConfig(
        **_COMMON, local_attention=16, global_attn_every_n_layers=2, reference_compile=False
    ),
    "mpnet": lambda: transformers.MPNetConfig(**_COMMON | {"pad_token_id": 1}),
    "qwen3": lambda: transformers.Qwen3Config(**_COMMON, num_key_value_heads=2, head_dim=16),
    "roberta": lambda: transformers.RobertaConfig(**_ROBERTA),
    "xlm-roberta": lambda: transformers.XLMRobertaConfig(**_ROBERTA),
}
if "nomic_bert" in CONFIG_MAPPING:  # of transformers 5
    FAMILIES["nomic_bert"] = lambda: CONFIG_MAPPING["nomic_bert"](**_COMMON)


def tiny_transformer(family: str, labels: int = 0) -> PreTrainedModel:
    """A random float32 model in evaluation mode, the same at every call; a classifier by labels."""
    torch.manual_seed(0)
    config = FAMILIES[family]()
    auto: Any = transformers.AutoModel
    if labels:
        config.num_labels = labels
        auto = transformers.AutoModelForSequenceClassification
    with warnings.catch_warnings():  # importing DeBERTa calls torch.jit.script, which warns
        warnings.simplefilter("ignore", DeprecationWarning)
        model: PreTrainedModel = auto.from_config(config, attn_implementation="eager")
    with torch.no_grad():  # biases and norms start as zeros and ones, which would hide mistakes
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.eval()
    return model


def modules_json(*kinds: str) -> list[dict[str, Any]]:
    """sentence-transformers' modules.json of a Transformer and `kinds` behind it."""
    return [
        {"idx": n, "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.{kind}"}
        for n, kind in enumerate(("Transformer", *kinds))
    ]


SENTENCE_TRANSFORMER: Mapping[str, Any] = {
    "modules.json": modules_json("Pooling", "Normalize"),
    "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
    "sentence_bert_config.json": {"max_seq_length": 96, "do_lower_case": True},
    "config_sentence_transformers.json": {
        "prompts": {"query": "query: ", "document": ""},
        "default_prompt_name": "query",
    },
}


def save_encoder_folder(
    directory: Path, family: str = "bert", labels: int = 0, files: Mapping[str, Any] | None = None
) -> Path:
    """The model, its tokenizer, LICENSE, and `files` as JSON."""
    tiny_transformer(family, labels).save_pretrained(directory)
    PreTrainedTokenizerFast(
        tokenizer_object=word_piece(),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_max_length=POSITIONS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(directory)
    (directory / "LICENSE").write_text("The tiny licence.\n", encoding="utf-8")
    write_json(directory, files or {})
    return directory


DECODER_MADE: Mapping[str, Any] = {
    "modules.json": modules_json("Pooling", "Normalize"),
    "1_Pooling/config.json": {
        "pooling_mode_mean_tokens": False,
        "pooling_mode_lasttoken": True,
        "include_prompt": True,
    },
    "config_sentence_transformers.json": {
        "prompts": {"query": "Find what answers:", "document": ""},
        "default_prompt_name": None,
    },
}
"""The files of Qwen3-Embedding, with a prompt of its kind."""


def save_decoder_made_folder(directory: Path) -> Path:
    """An embedder of a decoder's architecture, which pads on the left and ends every text."""
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        **_COMMON | {"vocab_size": VOCABULARY}, num_key_value_heads=2, head_dim=16
    )
    transformers.Qwen3Model(config).save_pretrained(directory)
    PreTrainedTokenizerFast(
        tokenizer_object=ending_tokenizer(),
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        padding_side="left",
        model_max_length=POSITIONS,
    ).save_pretrained(directory)
    write_json(directory, DECODER_MADE)
    return directory


def write_json(directory: Path, files: Mapping[str, Any]) -> None:
    """Each value of `files` at its path."""
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(json.dumps(content), encoding="utf-8")
