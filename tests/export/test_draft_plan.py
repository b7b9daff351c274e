"""`--plan` and the dry run say of a draft model what it would gain, take and cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from handlers.config import Settings
from model_export.decoder.cut import cut_to_first, layers_of
from model_export.decoder.exits import choices_by_layers
from model_export.draft.plan import HEAD, draft_table
from model_export.fetch.load import LoadedModel
from model_export.recipe import DecoderRecipe, Precision
from model_export.recipe_loader import load_decoder_recipe
from model_export.reporting import ExportError
from model_export.sizing.cost import Cost
from model_export.sizing.draft import SESSION_BYTES, size_of_own_layers
from model_export.sizing.dry_run import Prediction, dry_run
from model_export.sizing.footprint import Layers, Matrix, Outline
from tests.export.test_draft_export import pair, write_recipe
from tests.support.families import tiny
from tests.support.reports import ignore
from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_models import SAVED, tiny_model
from tests.support.tiny_strategies import load_tiny

SETTINGS = Settings.from_environ({})
WINDOWS = [[5, 9, 44, 101, 260, 7, 13], [300, 2, 18]]
OTHERS = ("granite", "gpt_neox", "olmo2", "cohere", "qwen3_moe")


def alone(model: PreTrainedModel, count: int) -> list[list[int]]:
    """The first choices of a model that is cut to its first layers."""
    found = layers_of(model)
    assert found is not None
    with cut_to_first(model, found, count), torch.no_grad():
        logits = [model(input_ids=torch.tensor([ids]), use_cache=False).logits for ids in WINDOWS]
    return [each[0].argmax(1).tolist() for each in logits]


@pytest.mark.parametrize("family", [*SAVED, *OTHERS])
def test_one_pass_tells_what_a_model_says_that_has_only_its_first_layers(family: str) -> None:
    model = tiny_model(family) if family in SAVED else tiny(family)
    found = layers_of(model)
    assert found is not None
    counts = range(1, len(found.layers) + 1)
    choices = choices_by_layers(model, found, WINDOWS, counts, ignore)
    for count in counts:
        assert [each.tolist() for each in choices[count]] == alone(model, count)


def test_weights_that_are_read_a_layer_at_a_time_give_the_same(tmp_path: Path) -> None:
    loaded = load_tiny(tmp_path / "tiny")
    found, real = layers_of(loaded.model), tiny_model("llama")
    assert found is not None
    choices = choices_by_layers(loaded.model, found, WINDOWS, [1, 2], ignore)
    for count in (1, 2):
        assert [each.tolist() for each in choices[count]] == alone(real, count)
    assert not any("forward" in vars(layer) for layer in found.layers)


def loaded_pair(directory: Path) -> tuple[LoadedModel, DecoderRecipe]:
    recipe = load_decoder_recipe(str(pair(directory)))
    return load_tiny(directory / "large"), recipe


def test_the_table_has_some_numbers_of_own_layers_and_the_recipes_draft_model(
    tmp_path: Path,
) -> None:
    loaded, recipe = loaded_pair(tmp_path)
    head, *lines = draft_table(loaded, recipe, WINDOWS, ignore).splitlines()
    assert head.split() == " ".join(HEAD).split()
    names = [line.strip().rsplit(None, 4)[0] for line in lines]
    assert names == ["the first 1 of 3 layers", "the first 2 of 3 layers", "small"]
    for line in lines:
        acceptance, step, ids, speed = map(float, line.split()[-4:])
        assert 0 <= acceptance <= 1
        assert 0 < step <= 1.1
        assert 1 <= ids <= 7
        assert speed < 1


def test_a_model_with_states_has_no_table(tmp_path: Path) -> None:
    loaded, recipe = loaded_pair(tmp_path)
    hybrid = LoadedModel(
        tiny_model("hybrid"), loaded.tokenizer, loaded.chat_template, None, (), "tiny", "0"
    )
    assert draft_table(hybrid, recipe, WINDOWS, ignore) == ""


def predicted(path: Path) -> Prediction:
    return dry_run(load_decoder_recipe(str(path)), SETTINGS, ignore)


def table_of(path: Path) -> str:
    return predicted(path).table


def test_the_dry_run_counts_another_model(tmp_path: Path) -> None:
    both = predicted(pair(tmp_path))
    assert "draft model         small: 0 MB more on disk, " in both.table
    alone = predicted(write_recipe(tmp_path, "large"))
    assert "draft model" not in alone.table
    assert both.cost.artefact > alone.cost.artefact
    assert both.cost.memory > alone.cost.memory


def test_the_dry_run_counts_own_layers_without_weights_of_their_own(tmp_path: Path) -> None:
    save_tiny_folder(tmp_path / "large")
    text = table_of(write_recipe(tmp_path, "large", "[draft]\nlayers = 2\n"))
    assert "the first 2 of 3 layers: 0 MB more on disk, 0 MB a slot, a step takes " in text


@pytest.mark.parametrize("layers", [3, 4, 100])
def test_the_dry_run_refuses_as_many_layers_as_the_model_has(tmp_path: Path, layers: int) -> None:
    save_tiny_folder(tmp_path / "large")
    path = write_recipe(tmp_path, "large", f"[draft]\nlayers = {layers}\n")
    with pytest.raises(ExportError, match=rf"\[draft\] layers is {layers}, and the model has 3"):
        table_of(path)


def test_the_dry_run_names_the_recipe_of_a_draft_model_that_it_cannot_read(
    tmp_path: Path,
) -> None:
    save_tiny_folder(tmp_path / "large")
    path = write_recipe(tmp_path, "large", '[draft]\nrecipe = "small.toml"\n')
    write_recipe(tmp_path, "small")
    with pytest.raises(ExportError, match=r"\[draft\] recipe .*small\.toml: .*does not exist"):
        table_of(path)


def large_outline() -> Outline:
    """A billion values in ten layers, and a head of a tenth of that."""
    matrices = (Matrix(500_000, 2_000, head=False), Matrix(50_000, 2_000, head=True))
    return Outline("Some", 0, matrices, 0, 1000, 0, 50_000, 1, Layers(10, 0, 0))


def test_a_step_of_own_layers_takes_their_share_and_the_head() -> None:
    half = size_of_own_layers(large_outline(), Precision("int8"), 5)
    assert half.step_cost == pytest.approx(0.6 / 1.1, abs=0.02)
    assert half.values == 600_000_000
    assert (half.weights, half.slot, half.memory(4)) == (0, 0, SESSION_BYTES)
    cost = Cost(memory=5, artefact=3, scratch=2)
    assert half.added_to(cost) == cost
