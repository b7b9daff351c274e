"""Walks a tiny random model of a family of decoders through the export.

`examine` exports it in fp32 and lets handlers.engine answer beside transformers.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import onnx_ir as ir
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from handlers.artifact.manifest import Artifact
from handlers.config import Settings
from handlers.engine.engine import Engine
from handlers.engine.params import SamplingParams
from model_export.decoder.convert import convert
from model_export.fuse import fuse
from model_export.quantize import quantize
from model_export.recipe import Precision
from model_export.reporting import ExportError
from tests.support.family_configurations import (
    CONTEXT_LENGTH,
    VOCABULARY,
    small_configuration,
)
from tests.support.reference import greedy_ids
from tests.support.tiny_exports import write_artifact

NEW_TOKENS = 12

EXPORTS = "exports"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`outcome` is EXPORTS or the sentence of the refusal, without the class's name."""

    model_class: str
    outcome: str


def tiny(kind: str) -> PreTrainedModel:
    """A random float32 model of the family, the same at every call."""
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(
        small_configuration(kind), attn_implementation="eager"
    )
    enliven(model)
    model.eval()
    return model


def examine(kind: str) -> Verdict:
    """Export a tiny model of the family and compare. Raises AssertionError where ids differ."""
    return examine_model(tiny(kind))


def examine_model(model: PreTrainedModel, precision: Precision | None = None) -> Verdict:
    """Examines a model of VOCABULARY ids, and quantises it. AssertionError where ids differ."""
    name = type(model).__name__
    try:
        graph = fuse(convert(model, CONTEXT_LENGTH))
    except ExportError as refusal:
        return Verdict(name, str(refusal).removeprefix(name).strip())
    expected = greedy_ids(model, _prompts(), NEW_TOKENS)
    with tempfile.TemporaryDirectory() as directory:
        answers = _engine_ids(Artifact.open(write_artifact(name, graph, Path(directory), ())))
    assert answers == expected, f"{name} answers otherwise than transformers"
    assert len({token for answer in expected for token in answer}) > 8, f"{name} repeats itself"
    if precision is not None:
        _check_quantised(quantize(graph, precision))
    return Verdict(name, EXPORTS)


def _check_quantised(graph: ir.Model) -> None:
    """Computes every weight, and holds that no node multiplies by a plain one."""
    for value in graph.graph.initializers.values():
        assert value.const_value is not None
        assert value.const_value.numpy().size > 0
    plain = [
        node.name
        for node in graph.graph
        if node.op_type in ("MatMul", "Gemm")
        and any(each is not None and each.is_initializer() for each in node.inputs)
    ]
    assert not plain


def _engine_ids(artifact: Artifact) -> list[list[int]]:
    """Greedy ids of all prompts at once: chunks of some beside the answers of others."""
    settings = {
        "KINDLING_THREADS": "1",
        "KINDLING_PREFILL_CHUNK": "7",
        "KINDLING_QUEUE_LIMIT": str(len(_prompts())),
    }
    engine = Engine.load(artifact, Settings.from_environ(settings))
    params = SamplingParams(max_tokens=NEW_TOKENS, temperature=0.0)
    answers = [engine.submit(prompt, params) for prompt in _prompts()]
    return [[step.token_id for step in answer if step.token_id is not None] for answer in answers]


def _prompts() -> list[list[int]]:
    """One, some, and more tokens than the sliding windows."""
    source = random.Random(7)
    return [[source.randrange(3, VOCABULARY) for _ in range(n)] for n in (1, 9, 47, 30)]


def enliven(model: PreTrainedModel, width: float = 0.3) -> None:
    """Weights wide enough that answers wander, biases and norms that would show a mistake.

    `width` is the matrices' standard deviation: less for a model that is wider than tiny ones.
    """
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif parameter.std() < 0.8 * width:
                parameter.normal_(0, width)
        scale = _embedding_scale(model)
        if scale != 1:  # it echoes
            table = cast("torch.nn.Embedding", model.get_input_embeddings()).weight
            table.mul_(0.8 / scale)


def _embedding_scale(model: PreTrainedModel) -> float:
    """Returns by how much the embeddings grow beside what the layers add."""
    config = model.config.get_text_config()
    if getattr(config, "scale_embedding", False) or config.model_type.startswith("gemma"):
        return float(config.hidden_size**0.5)
    return float(
        getattr(config, "embedding_multiplier", 1) / getattr(config, "residual_multiplier", 1)
    )
