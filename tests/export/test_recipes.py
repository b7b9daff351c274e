"""Every shipped decoder's recipe, with what its configuration says of heads, norms and rotation.

The weights are random and the layers few and narrow: real weights cannot be had here.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from handlers.config import Settings
from model_export.recipe import EncoderRecipe, HubSource
from model_export.recipe_loader import load_recipe
from model_export.sizing.dry_run import slots_of
from tests.support.configurations import CONFIGURATIONS, exportable
from tests.support.families import EXPORTS, enliven, examine_model
from tests.support.family_configurations import VOCABULARY

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "intermediate_size": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
LAYERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_layer": 2},
    "gemma3_text": {"num_hidden_layers": 6},
    "granitemoehybrid": {
        "num_hidden_layers": 2,
        "layer_types": ["attention"] * 2,
        "shared_intermediate_size": 256,
    },
    "lfm2": {"num_hidden_layers": 3, "block_ff_dim": 384},
    "qwen3_5_text": {"num_hidden_layers": 4},
    "smollm3": {"num_hidden_layers": 4},
}
"""Others have two. Of Gemma's every sixth sees all tokens, of Qwen3.5's every fourth attends and of
LFM2's the third, and SmolLM3's fourth has no rotary embedding."""


def decoders() -> list[str]:
    recipes = [load_recipe(name) for name in exportable()]
    kept = [r for r in recipes if not isinstance(r, EncoderRecipe)]
    return [recipe.name for recipe in kept if isinstance(recipe.source, HubSource)]


def few_layers(name: str) -> PreTrainedModel:
    fields = CONFIGURATIONS[name] | SMALL
    kind = fields.pop("model_type")
    config = AutoConfig.for_model(kind, **fields | LAYERS.get(kind, {"num_hidden_layers": 2}))
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    enliven(model, width=2.4 / config.hidden_size**0.5)
    model.eval()
    return model


@pytest.mark.parametrize("name", decoders())
def test_an_agents_first_prompt_fits_by_default_where_the_model_holds_it(name: str) -> None:
    """smolagents' is of 2,324 tokens. GPT-2 has positions for 1,024."""
    recipe = load_recipe(name)
    _, tokens = slots_of(recipe, Settings.from_environ({}))
    assert tokens >= 3072 or recipe.name == "gpt2"


@pytest.mark.parametrize("name", decoders())
def test_a_few_layers_in_a_recipes_shape_answer_as_transformers_does_and_are_quantised(
    name: str,
) -> None:
    precision = load_recipe(name).precision
    if precision.weights == "auto":
        precision = replace(precision, weights=precision.choices[0])
    verdict = examine_model(few_layers(name), precision)
    assert verdict.outcome == EXPORTS
