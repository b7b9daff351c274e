"""Writes a model of a shipped recipe's size with random weights, as a folder that exports read.

    python -m bench.random_model RECIPE DIR

Time and memory do not depend on the values, which are the same at every call. The model is never in
memory: its modules are built on torch's meta device, and bench/random_weights.py writes a tensor at
a time. The tokenizer is a demo's, whose ids every larger vocabulary has: of decoders one, of others
BERT's own. Runs in a process of its own, whose memory no benchmark counts.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import torch
import transformers
from transformers import (
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from bench.random_weights import save_weights
from model_export.fetch.gguf_tokenizer import correct
from model_export.fetch.locate import locate
from model_export.recipe import DecoderRecipe, EncoderRecipe, Precision
from model_export.recipe_loader import load_recipe
from tests.support.configurations import shipped

DRIFTING = {"max_kl": 100.0, "min_top1_agreement": 0.0, "max_perplexity_ratio": 100.0}
TURNING = {"min_mean_cosine": -1.0, "min_cosine": -1.0}
SCORING = {"min_top1_agreement": 0.0, "max_score_difference": 100.0}
CLASSES = {
    "text-generation": "AutoModelForCausalLM",
    "feature-extraction": "AutoModel",
    "text-classification": "AutoModelForSequenceClassification",
    "text-ranking": "AutoModelForSequenceClassification",
}


def write(name: str, directory: Path) -> None:
    """Writes `directory`/source, whose weights are bfloat16, and `directory`/recipe.toml."""
    recipe, config = shipped(name)
    source = directory / "source"
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
    (directory / "recipe.toml").write_text(_recipe(recipe), encoding="utf-8")


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


def _recipe(recipe: DecoderRecipe | EncoderRecipe) -> str:
    """Returns the shipped recipe with the folder for a source, and limits that anything keeps."""
    export = msgspec.to_builtins(recipe.export)
    tolerance = DRIFTING
    if isinstance(recipe, EncoderRecipe):
        tolerance = TURNING if recipe.export.task == "feature-extraction" else SCORING
    if recipe.export.task == "feature-extraction":
        defaults = {"pooling": "cls", "normalize": True}  # the folder has no modules.json
        export |= {key: value for key, value in defaults.items() if export.get(key) is None}
    tables = {
        "model": {"id": f"{recipe.name}-random", "licence": "Apache-2.0"},
        "source": {"path": "source"},
        "export": export,
        "precision": _precision(recipe.precision),
        "tolerance": tolerance,
    }
    return "\n".join(f"[{name}]\n{_toml(values)}" for name, values in tables.items())


def _precision(precision: Precision) -> dict[str, Any]:
    """Returns what is not the default, which an encoder's recipe may not even name."""
    defaults = msgspec.to_builtins(Precision())
    fields = msgspec.to_builtins(precision)
    return {key: value for key, value in fields.items() if value != defaults[key]}


def _toml(values: dict[str, Any]) -> str:
    """Returns the lines of a table."""
    known = {key: value for key, value in values.items() if value is not None}
    return "".join(f"{key} = {_toml_value(value)}\n" for key, value in known.items())


def _toml_value(value: object) -> str:
    """Returns a value as TOML has it: JSON writes texts, numbers and truths alike."""
    if isinstance(value, dict):
        known = (
            f"{key} = {_toml_value(of_it)}" for key, of_it in value.items() if of_it is not None
        )
        return f"{{ {', '.join(known)} }}"
    return json.dumps(value)


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
