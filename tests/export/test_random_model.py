"""The benchmark's random models are folders and recipes that the export reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from bench import random_model
from bench.folder_recipe import FIXED
from bench.random_weights import save_weights
from model_export.encoder.source import fetch_encoder
from model_export.recipe import EncoderRecipe
from model_export.recipe_loader import load_recipe
from tests.support.configurations import exportable, shipped
from tests.support.reports import ignore

SMALL = {
    "hidden_size": 48,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "dim": 48,
    "hidden_dim": 32,
    "n_layers": 1,
    "n_embd": 24,
    "n_layer": 1,
    "layer_types": ["full_attention"],
}


def encoders() -> list[str]:
    recipes = [load_recipe(name) for name in exportable()]
    return [recipe.name for recipe in recipes if isinstance(recipe, EncoderRecipe)]


def small(name: str) -> Any:
    recipe, config = shipped(name)
    for key, value in SMALL.items():
        if key in config.to_dict():
            setattr(config, key, value)
    if random_model.decodes(config):
        config.num_attention_heads, config.num_key_value_heads = 2, 1
    return recipe, config


@pytest.mark.parametrize("name", encoders())
def test_an_encoder_is_loaded_as_its_recipe_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(random_model, "shipped", small)

    random_model.write(name, tmp_path)

    written, recipe = load_recipe(str(tmp_path / "recipe.toml")), load_recipe(name)
    assert isinstance(written, EncoderRecipe)
    assert isinstance(recipe, EncoderRecipe)
    assert (written.export.task, written.precision) == (recipe.export.task, recipe.precision)
    source = fetch_encoder(written, ignore)
    assert source.info.max_tokens == (recipe.export.max_tokens or 512)
    if not random_model.decodes(shipped(name)[1]):
        assert source.loaded.tokenizer("A kettle")["input_ids"][0] == 101  # BERT's own [CLS]


@pytest.mark.parametrize("name", ["gpt2", "llama-3.2-1b", "qwen2.5-0.5b"])
def test_a_decoders_weights_are_all_there_and_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(random_model, "shipped", small)

    random_model.write(name, tmp_path)

    recipe = load_recipe(str(tmp_path / "recipe.toml"))
    assert recipe.precision == FIXED
    config = json.loads((tmp_path / "source" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        tmp_path / "source", output_loading_info=True, dtype=torch.float32
    )
    model, info = loaded
    assert config["architectures"] == [type(model).__name__]
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    logits = model(torch.arange(12)[None]).logits
    assert 0 < logits.std() < 100


def test_random_weights_depend_on_their_names_alone(tmp_path: Path) -> None:
    shapes = {"a.weight": (3, 5), "b.weight": (3, 5), "norm.weight": (5,), "a.bias": (3,)}
    save_weights(shapes, tmp_path, 0.02)
    whole = load_file(tmp_path / "model.safetensors")
    assert not (tmp_path / "model.safetensors.index.json").exists()
    assert {name: tuple(value.shape) for name, value in whole.items()} == shapes
    assert not torch.equal(whole["a.weight"], whole["b.weight"])
    assert whole["norm.weight"].tolist() == [1.0] * 5
    assert whole["a.bias"].tolist() == [0.0] * 3
    save_weights(dict(reversed(shapes.items())), tmp_path, 0.02, shard_bytes=40)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert {*index["weight_map"]} == {*shapes}
    assert index["metadata"]["total_size"] == 2 * (15 + 15 + 5 + 3)
    assert len({*index["weight_map"].values()}) == 3
    for name, file in index["weight_map"].items():
        assert torch.equal(load_file(tmp_path / file)[name], whole[name])
