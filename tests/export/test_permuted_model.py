"""The permuted model of the benchmark: other weights, the same function."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from bench import permuted_model
from bench.permuted_model import permute_and_compare, write
from model_export.fetch.load import fetch
from model_export.fetch.stand_ins import fill
from model_export.recipe import FolderSource
from model_export.recipe_loader import load_decoder_recipe
from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_models import tiny_model

IDS = torch.arange(1, 40)[None]


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma3"])
def test_a_permuted_model_computes_the_same(family: str) -> None:
    model = tiny_model(family)
    before = copy.deepcopy(model)
    assert permute_and_compare(model, IDS, seed=0) < 1e-3
    with torch.no_grad():
        assert before(IDS).logits.std() > 0.1
    matrices = [name for name, value in before.named_parameters() if value.ndim == 2]
    assert not [
        name
        for name in matrices
        if torch.equal(model.get_parameter(name), before.get_parameter(name))
    ]


def test_a_model_that_computes_something_else_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(permuted_model, "_WRITE_HIDDEN", ("o_proj",))
    monkeypatch.setattr(permuted_model, "_NORMS", (*permuted_model._NORMS, "down_proj"))
    with pytest.raises(ValueError, match="LlamaForCausalLM computes something else"):
        permute_and_compare(tiny_model("llama"), IDS, seed=0)


def test_parameters_of_unknown_axes_are_refused() -> None:
    with pytest.raises(ValueError, match="No order is known for the weights of"):
        permute_and_compare(tiny_model("gpt2"), IDS, seed=0)


def test_the_folder_is_a_source_of_an_export(tmp_path: Path) -> None:
    source = save_tiny_folder(tmp_path / "tiny")
    write("smollm2-135m", tmp_path / "permuted", FolderSource(source))
    recipe = load_decoder_recipe(str(tmp_path / "permuted" / "recipe.toml"))
    assert recipe.precision == load_decoder_recipe("smollm2-135m").precision
    assert recipe.tolerance.max_kl >= 100
    loaded = fetch(recipe.source, lambda _: None)
    fill(loaded.model)
    with torch.no_grad():
        difference = loaded.model(IDS).logits - tiny_model("llama")(IDS).logits
    assert difference.abs().max() < 1e-3
    assert not (tmp_path / "permuted" / "vocabulary.gguf").exists()
