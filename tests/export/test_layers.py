"""A model is cut to one of each kind of layer, and its logits come from a layer at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import CONFIG_MAPPING, PreTrainedModel

from model_export.decoder.cut import cut_to_kinds, layers_of
from model_export.decoder.logits import record_logits
from model_export.fetch.stand_ins import weight_of
from tests.support.families import tiny
from tests.support.reports import ignore
from tests.support.skeletons import skeleton_of
from tests.support.tiny_models import SAVED, tiny_model

WINDOWS = [[3, 5, 7, 9, 11, 4, 2, 6, 8, 10, 12, 13], [4, 8, 15, 16, 23]]
IDS = [2, 3, 4, 5, 7, 9, 11, 30]


def logits_of(model: PreTrainedModel, window: list[int]) -> NDArray[np.float32]:
    with torch.no_grad():
        logits: NDArray[np.float32] = model(input_ids=torch.tensor([window])).logits[0].numpy()
    return logits


def recorded(model: PreTrainedModel, path: Path) -> NDArray[np.float32]:
    record_logits(model, WINDOWS, path, ignore)
    return np.fromfile(path, np.float32).reshape(sum(map(len, WINDOWS)), -1)


@pytest.mark.parametrize("family", SAVED)
def test_logits_a_layer_at_a_time_are_those_of_the_whole_model(tmp_path: Path, family: str) -> None:
    model = tiny_model(family)
    whole = np.concatenate([logits_of(model, window) for window in WINDOWS])
    skeleton = skeleton_of(model)
    np.testing.assert_allclose(recorded(model, tmp_path / "logits"), whole, atol=1e-5)
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for name, weight in skeleton.weights.items():
        shared = tied and weight.shape[0] == whole.shape[1]
        assert weight.reads == (2 if shared else 1), name


@pytest.mark.parametrize(
    "kind", [kind for kind in ("gemma3n_text", "gemma4_text") if kind in CONFIG_MAPPING]
)
def test_a_model_whose_layers_share_caches_is_computed_whole(tmp_path: Path, kind: str) -> None:
    model = tiny(kind)
    assert layers_of(model) is None
    whole = np.concatenate([logits_of(model, window) for window in WINDOWS])
    skeleton_of(model)
    np.testing.assert_allclose(recorded(model, tmp_path / "logits"), whole, atol=1e-5)
    with cut_to_kinds(model, IDS) as cut:
        assert cut.vocabulary == tuple(range(whole.shape[1]))


def test_weights_are_in_memory_only_while_their_layer_computes(tmp_path: Path) -> None:
    model = tiny_model("llama")
    skeleton_of(model)
    found = layers_of(model)
    assert found is not None
    filled: list[list[int]] = []

    def note(*_: object) -> None:
        filled.append([n for n, layer in enumerate(found.layers) if not _stands_in(layer)])

    for layer in found.layers:
        layer.register_forward_pre_hook(note)
        layer.self_attn.register_forward_pre_hook(note)  # type: ignore[union-attr]
    recorded(model, tmp_path / "logits")
    assert filled == [[], [0], [], [1], [], [2]]
    assert all(map(_stands_in, found.layers))


def _stands_in(layer: torch.nn.Module) -> bool:
    return any(weight_of(parameter) is not None for parameter in layer.parameters())


@pytest.mark.parametrize(
    ("family", "kept"),
    [("llama", (0, 2)), ("gemma3", (0, 1, 2)), ("smollm3", (0, 1, 2)), ("gpt2", (0, 2))],
)
def test_a_cut_has_the_first_layer_the_last_and_one_of_each_kind(
    family: str, kept: tuple[int, ...]
) -> None:
    with cut_to_kinds(tiny_model(family), IDS) as cut:
        assert cut.layers == kept


@pytest.mark.parametrize("family", SAVED)
def test_a_cut_model_computes_with_its_own_weights_and_is_whole_again(family: str) -> None:
    model = tiny_model(family)
    window = [3, 5, 7, 9]
    whole, config = logits_of(model, window), model.config.to_dict()
    skeleton = skeleton_of(model)
    with cut_to_kinds(model, IDS) as cut:
        rows = [cut.vocabulary.index(token) for token in window]
        few = logits_of(model, rows)
        assert few.shape == (len(window), len(IDS))
        if len(cut.layers) == 3:  # all are there: the same logits of fewer tokens
            np.testing.assert_allclose(few, whole[:, IDS], atol=1e-5)
    assert model.config.to_dict() == config
    for name, weight in skeleton.weights.items():
        parameter = model.get_parameter(name)
        assert weight_of(parameter) is weight
    with torch.no_grad():
        model.load_state_dict(
            {name: torch.from_numpy(weight.array) for name, weight in skeleton.weights.items()},
            strict=False,
            assign=True,
        )
        model.tie_weights()
    np.testing.assert_array_equal(logits_of(model, window), whole)
