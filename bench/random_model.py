"""A model of a shipped recipe's size with random weights, as a folder that the export reads.

    python -m bench.random_model RECIPE DIR

Time and memory do not depend on the values. The tokenizer is a demo's, whose ids every larger
vocabulary has; that of the encoders is BERT's own, as theirs is. In a process of its own, whose
memory bench.sizes does not count.
"""

from __future__ import annotations

import sys
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

from model_export.fetch.load import fetch
from model_export.fetch.locate import locate
from model_export.recipe import DecoderRecipe, EncoderRecipe
from model_export.recipe_loader import load_recipe
from tests.support.configurations import shipped

RECIPE = """
[model]
id = "{name}-random"
licence = "Apache-2.0"

[source]
path = "source"

[export]
{export}

[precision]
{precision}

[tolerance]
{tolerance}
"""
DRIFTING = "max_kl = 100.0\nmin_top1_agreement = 0.0\nmax_perplexity_ratio = 100.0"
TURNING = "min_mean_cosine = -1.0\nmin_cosine = -1.0"
SCORING = "min_top1_agreement = 0.0\nmax_score_difference = 100.0"
CLASSES = {
    "text-generation": "AutoModelForCausalLM",
    "feature-extraction": "AutoModel",
    "text-classification": "AutoModelForSequenceClassification",
    "text-ranking": "AutoModelForSequenceClassification",
}


def write(name: str, directory: Path) -> None:
    """`directory`/source and `directory`/recipe.toml. The weights are bfloat16."""
    recipe, config = shipped(name)
    _random(config, CLASSES[recipe.export.task]).save_pretrained(directory / "source")
    tables = _encoder(recipe) if isinstance(recipe, EncoderRecipe) else _decoder(recipe)
    _tokenizer(isinstance(recipe, EncoderRecipe)).save_pretrained(directory / "source")
    text = RECIPE.format(name=name, **tables)
    (directory / "recipe.toml").write_text(text, encoding="utf-8")


def _random(config: PretrainedConfig, auto_class: str) -> PreTrainedModel:
    torch.manual_seed(0)
    auto: Any = getattr(transformers, auto_class)
    model: PreTrainedModel = auto.from_config(config, dtype=torch.bfloat16)
    return model


def _tokenizer(encodes: bool) -> PreTrainedTokenizerBase:
    demo = load_recipe("all-minilm-l6-v2" if encodes else "smollm2-135m")
    if not encodes:
        return fetch(demo.source, print).tokenizer
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        locate(demo.source, print).directory
    )
    return tokenizer


def _decoder(recipe: DecoderRecipe) -> dict[str, str]:
    precision = recipe.precision
    return {
        "export": f"context_length = {recipe.export.context_length}",
        "precision": f'weights = "{precision.weights}"\nlm_head = "{precision.head}"\n'
        f"block_size = {precision.block_size}",
        "tolerance": DRIFTING,
    }


def _encoder(recipe: EncoderRecipe) -> dict[str, str]:
    embeds = recipe.export.task == "feature-extraction"
    pooling = '\npooling = "cls"\nnormalize = true' if embeds else ""
    return {
        "export": f'task = "{recipe.export.task}"{pooling}',
        "precision": f'weights = "{recipe.precision.weights}"',
        "tolerance": TURNING if embeds else SCORING,
    }


if __name__ == "__main__":
    write(sys.argv[1], Path(sys.argv[2]))
