"""Tiny random BERTs as complete fp32 artefacts, one for each task of an encoder.

Their tokenizer is a real WordPiece, trained on the spot, which adds [CLS] and [SEP] and tells the
segments of a pair.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel

from handlers.artifact.manifest import (
    GRAPH,
    MANIFEST,
    SCHEMA,
    TOKENIZER,
    FileInfo,
    Manifest,
    ModelInfo,
    Task,
)
from tests.support.encoder_tasks import INFOS, MAX_TOKENS
from tests.support.tiny_tokenizers import WORD_PIECES, word_piece


class Embedding(torch.nn.Module):
    """The mean over a text's tokens, of length 1."""

    def __init__(self, bert: BertModel) -> None:
        super().__init__()
        self.bert = bert

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        states = self.bert(input_ids, attention_mask, token_type_ids).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        mean = (states * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1)


class Classifier(torch.nn.Module):
    """One logit for each label."""

    def __init__(self, bert: BertForSequenceClassification) -> None:
        super().__init__()
        self.bert = bert

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor
    ) -> torch.Tensor:
        logits: torch.Tensor = self.bert(input_ids, attention_mask, token_type_ids).logits
        return logits


def tiny_encoder(task: Task) -> torch.nn.Module:
    """A random float32 model in evaluation mode, the same at every call."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORD_PIECES,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        max_position_embeddings=MAX_TOKENS,
        initializer_range=0.3,
        num_labels=max(1, len(INFOS[task].labels)),
    )
    model: torch.nn.Module
    if task == "feature-extraction":
        model = Embedding(BertModel(config, add_pooling_layer=False))
    else:
        model = Classifier(BertForSequenceClassification(config))
    return model.eval()


def export_tiny_encoder(task: Task, directory: Path) -> Path:
    """Write a complete artefact into `directory`, and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    inputs = ("input_ids", "attention_mask", "token_type_ids")
    output = "embeddings" if task == "feature-extraction" else "logits"
    axes = {name: {0: "batch", 1: "sequence"} for name in inputs}
    example = tuple(torch.ones(2, 3, dtype=torch.int64) for _ in inputs)
    torch.onnx.export(
        tiny_encoder(task),
        example,
        str(directory / GRAPH),
        input_names=list(inputs),
        output_names=[output],
        dynamic_axes=axes | {output: {0: "batch"}},
        opset_version=18,
        dynamo=False,
    )
    word_piece().save(str(directory / TOKENIZER))
    (directory / MANIFEST).write_bytes(msgspec.json.encode(_manifest(task, directory)))
    return directory


def _manifest(task: Task, directory: Path) -> Manifest:
    files = sorted(path for path in directory.iterdir() if path.name != MANIFEST)
    return Manifest(
        schema=SCHEMA,
        task=task,
        model=ModelInfo(f"tiny-{task}", "tests", "0", "BertModel", "Apache-2.0"),
        precision="fp32",
        vocab_size=WORD_PIECES,
        context_length=MAX_TOKENS,
        eos_token_ids=(),
        special_tokens={},
        files={path.name: _file_info(path) for path in files},
        created=0,
        versions={},
        verification={},
        encoder=INFOS[task],
    )


def _file_info(path: Path) -> FileInfo:
    content = path.read_bytes()
    return FileInfo(size=len(content), sha256=hashlib.sha256(content).hexdigest())
