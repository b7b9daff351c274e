"""Writes a model of a shipped recipe's size with random weights, as a folder that exports read.

    python -m bench.random_model RECIPE DIR

Time and memory do not depend on the values, which are the same at every call. The model is never in
memory: its modules are built on torch's meta device, and bench/random_weights.py writes a tensor at
a time. The tokenizer is a demo's, whose ids every larger vocabulary has: of decoders one, of others
BERT's own. Runs in a process of its own, whose memory no benchmark counts.
"""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bench.folder_recipe import RECIPE, SOURCE, folder_recipe
from bench.random_weights import save_weights
from model_export.fetch.gguf_tokenizer import correct
from model_export.fetch.locate import locate
from model_export.recipe import EncoderRecipe, ModelTable
from model_export.recipe_loader import load_recipe
from tests.support.configurations import shipped

CLASSES = {
    "text-generation": "AutoModelForCausalLM",
    "feature-extraction": "AutoModel",
    "text-classification": "AutoModelForSequenceClassification",
    "text-ranking": "AutoModelForSequenceClassification",
}


def write(name: str, directory: Path) -> None:
    """Writes `directory`/source, whose weights are bfloat16, and `directory`/recipe.toml."""
    recipe, config = shipped(name)
    source = directory / SOURCE
    source.mkdir(parents=True, exist_ok=True)
    judges = isinstance(recipe, EncoderRecipe) and recipe.export.judge is not None
    task = "text-generation" if judges else recipe.export.task
    model = _skeleton(config, CLASSES[task])
    save_weights(shapes_of(model), source, getattr(config, "initializer_range", 0.02))
    model.config.architectures = [type(model).__name__]
    model.config.dtype = torch.bfloat16
    model.config.save_pretrained(source)
    if model.can_generate() and model.generation_config is not None:
        model.generation_config.save_pretrained(source)
    _tokenizer(recipe.export.task != "text-generation" and not decodes(config)).save_pretrained(
        source
    )
    named = ModelTable(id=f"{recipe.name}-random", licence="Apache-2.0")
    (directory / RECIPE).write_text(folder_recipe(recipe, named), encoding="utf-8")


def decodes(config: PretrainedConfig) -> bool:
    """Says whether a model is of a decoder's shape, even where it embeds or ranks."""
    return hasattr(config, "num_key_value_heads")


def shapes_of(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """Returns what a checkpoint of the model holds: without tied weights and transient buffers.

    Raises ValueError for a buffer that a checkpoint holds, since its values are not random.
    """
    parameters = {name: tuple(value.shape) for name, value in model.named_parameters()}
    held = set(model.state_dict()) - {
        name for name, _ in model.named_parameters(remove_duplicate=False)
    }
    if held:
        raise ValueError(f"The model has buffers among its weights: {', '.join(sorted(held))}.")
    return parameters


def _skeleton(config: PretrainedConfig, auto_class: str) -> PreTrainedModel:
    auto: Any = getattr(transformers, auto_class)
    with torch.device("meta"):
        model: PreTrainedModel = auto.from_config(config, dtype=torch.bfloat16)
    model.tie_weights()
    return model


@cache
def _tokenizer(encodes: bool) -> PreTrainedTokenizerBase:
    located = locate(load_recipe("all-minilm-l6-v2" if encodes else "smollm2-135m").source, print)
    tokenizer: Any = AutoTokenizer.from_pretrained(
        located.directory, gguf_file=located.gguf_file, local_files_only=True
    )
    if located.gguf_file is not None:
        correct(tokenizer, located.directory / located.gguf_file)
    random: PreTrainedTokenizerBase = tokenizer
    return random


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
