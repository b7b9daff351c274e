"""sentence-transformers' files become the end of the graph; what it could not honour is refused.

The expected numbers are written down from the definitions, over two rows with padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as safe
from safetensors.torch import save_file

from model_export.encoder.head import Dense, Normalize, Pooling
from model_export.encoder.sentence_transformers import (
    SentenceTransformer,
    read_cross_encoder,
    read_modules,
)
from model_export.recipe import POOLING_MODES
from model_export.reporting import ExportError
from tests.support.tiny_encoder_folder import SENTENCE_TRANSFORMER, modules_json, write_json

HIDDEN = torch.tensor(
    [[[1.0, -2.0], [3.0, 4.0], [5.0, -9.0]], [[-2.0, -4.0], [9.0, 9.0], [9.0, 9.0]]]
)
MASK = torch.tensor([[1, 1, 1], [1, 0, 0]])
POOLED: dict[str, list[list[float]]] = {
    "cls": [[1, -2], [-2, -4]],
    "max": [[5, 4], [-2, -4]],
    "mean": [[3, -7 / 3], [-2, -4]],
    "mean_sqrt_len": [[9 / 3**0.5, -7 / 3**0.5], [-2, -4]],
    "weighted_mean": [[(1 + 6 + 15) / 6, (-2 + 8 - 27) / 6], [-2, -4]],
    "last_token": [[5, -9], [-2, -4]],
}


def read(directory: Path, files: dict[str, Any]) -> SentenceTransformer:
    write_json(directory, files)
    modules = read_modules(directory)
    assert modules is not None
    return modules


def refusal(directory: Path, files: dict[str, Any]) -> str:
    write_json(directory, files)
    with pytest.raises(ExportError) as raised:
        read_modules(directory)
    return str(raised.value)


@pytest.mark.parametrize("mode", POOLED)
def test_padding_counts_for_nothing_in_any_mode(mode: str) -> None:
    assert set(POOLED) == set(POOLING_MODES)
    np.testing.assert_allclose(Pooling([mode])(HIDDEN, MASK), POOLED[mode], rtol=1e-6)


def test_several_modes_stand_side_by_side_in_their_order() -> None:
    pooled = Pooling(["mean", "cls"])(HIDDEN, MASK)
    expected = np.concatenate([POOLED["mean"], POOLED["cls"]], axis=1)
    np.testing.assert_allclose(pooled, expected, rtol=1e-6)


def test_a_row_of_zeros_stays_one_when_it_is_normalised() -> None:
    rows = Normalize()(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 0.0]])


def test_a_dense_module_has_its_activation() -> None:
    dense = Dense(torch.tensor([[1.0, 2.0]]), torch.tensor([0.5]), "Tanh")
    found = dense(torch.tensor([[3.0, -1.0]])).detach()
    np.testing.assert_allclose(found, np.tanh([[1.5]]), rtol=1e-6)


def test_a_folder_without_modules_has_none(tmp_path: Path) -> None:
    assert read_modules(tmp_path) is None


def test_the_files_say_how_to_pool_how_long_a_text_is_and_what_is_put_before_it(
    tmp_path: Path,
) -> None:
    modules = read(tmp_path, dict(SENTENCE_TRANSFORMER))
    assert modules.head.pooling.modes == ("mean",)
    assert [type(module) for module in modules.head.others] == [Normalize]
    assert (modules.max_tokens, modules.lowercases) == (96, True)
    assert modules.prompts == {"query": "query: ", "document": ""}
    assert modules.default_prompt == "query"


def test_an_older_model_names_its_architecture_in_the_file_of_its_longest_text(
    tmp_path: Path,
) -> None:
    files = dict(SENTENCE_TRANSFORMER)
    files["sentence_roberta_config.json"] = files.pop("sentence_bert_config.json")
    modules = read(tmp_path, files)
    assert (modules.max_tokens, modules.lowercases) == (96, True)


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, ("cls",)),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, ("last_token",)),
        ({"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True}, ("max", "mean")),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, ("cls", "mean")),
        ({"pooling_mode": "weightedmean"}, ("weighted_mean",)),
        (
            {"pooling_mode": ["mean_sqrt_len_tokens", "cls"], "pooling_mode_max_tokens": True},
            ("mean_sqrt_len", "cls"),
        ),
    ],
)
def test_pooling_is_read_in_both_spellings(
    tmp_path: Path, config: dict[str, Any], modes: tuple[str, ...]
) -> None:
    files = {"modules.json": modules_json("Pooling"), "1_Pooling/config.json": config}
    assert read(tmp_path, files).head.pooling.modes == modes


def test_a_dense_module_is_read_with_its_weights(tmp_path: Path) -> None:
    config = {"activation_function": "torch.nn.modules.activation.Tanh"}
    files = {
        "modules.json": modules_json("Pooling", "Dense", "Normalize"),
        "1_Pooling/config.json": {"pooling_mode_cls_token": True},
        "2_Dense/config.json": config,
    }
    write_json(tmp_path, files)
    weight = torch.arange(6, dtype=torch.float32).reshape(3, 2) / 10
    save_file({"linear.weight": weight}, tmp_path / "2_Dense" / "model.safetensors")
    found = read(tmp_path, {}).head(HIDDEN, MASK).detach().numpy()
    rows = np.tanh(np.array(POOLED["cls"]) @ weight.numpy().T)
    np.testing.assert_allclose(found, rows / np.linalg.norm(rows, axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("content", [b"broken", safe({"bias": torch.ones(2)})])
def test_a_dense_module_whose_weights_cannot_be_read_is_named(
    tmp_path: Path, content: bytes
) -> None:
    files = {"modules.json": modules_json("Pooling", "Dense"), "2_Dense/config.json": {}, **CLS}
    write_json(tmp_path, files)
    (tmp_path / "2_Dense" / "model.safetensors").write_bytes(content)
    assert "2_Dense/model.safetensors cannot be read" in refusal(tmp_path, {})


CLS = {"1_Pooling/config.json": {"pooling_mode_cls_token": True}}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"modules.json": modules_json("WordWeights")}, "begins with Transformer, WordWeights"),
        ({"modules.json": modules_json("Pooling", "CNN"), **CLS}, "a module CNN (2_CNN)"),
        (
            {"modules.json": [{"type": "own_code.Transformer", "path": ""}]},
            "begins with own_code.Transformer",
        ),
        (
            {"modules.json": modules_json("Pooling"), "1_Pooling/config.json": {}},
            "pools by nothing",
        ),
        (
            {
                "modules.json": modules_json("Pooling"),
                "1_Pooling/config.json": {"include_prompt": False, "pooling_mode_cls_token": True},
            },
            "leaves a prompt's tokens out",
        ),
        ({"modules.json": modules_json("Pooling")}, "1_Pooling/config.json cannot be read"),
        (
            {"modules.json": modules_json("Pooling"), "1_Pooling/config.json": ["cls"]},
            "1_Pooling/config.json cannot be read: Expected `object`, got `array`",
        ),
        ({"modules.json": {"0": "Transformer"}}, "modules.json cannot be read: Expected `array`"),
        ({"modules.json": [{"type": "Transformer"}]}, "missing required field `path`"),
        (
            {
                "modules.json": modules_json("Pooling", "Dense"),
                "2_Dense/config.json": {"activation_function": "torch.nn.Softmax"},
                **CLS,
            },
            "the activation torch.nn.Softmax",
        ),
        (
            {
                "modules.json": modules_json("Pooling", "Dense"),
                "2_Dense/config.json": {"activation_function": "my.own.Tanh"},
                **CLS,
            },
            "the activation my.own.Tanh",
        ),
        (
            {
                "modules.json": modules_json("Pooling", "Dense"),
                "2_Dense/config.json": {"module_input_name": "token_embeddings"},
                **CLS,
            },
            "2_Dense/config.json has module_input_name 'token_embeddings'",
        ),
        (
            {
                "modules.json": modules_json("Pooling"),
                "sentence_bert_config.json": {"processing_kwargs": {"text": {"max_length": 8}}},
                **CLS,
            },
            "sentence_bert_config.json has processing_kwargs {'text': {'max_length': 8}}",
        ),
        (
            {
                "modules.json": modules_json("Pooling", "Dense"),
                "2_Dense/config.json": {},
                **CLS,
            },
            "no model.safetensors",
        ),
    ],
)
def test_what_the_graph_could_not_honour_is_refused(
    tmp_path: Path, files: dict[str, Any], said: str
) -> None:
    assert said in refusal(tmp_path, files)


def test_a_prompt_that_a_cross_encoder_puts_before_every_text_is_refused(tmp_path: Path) -> None:
    settings = {"activation_fn": "torch.nn.Sigmoid", "default_prompt_name": None}
    write_json(tmp_path, {"config_sentence_transformers.json": settings})
    assert read_cross_encoder(tmp_path).activation == "torch.nn.Sigmoid"
    settings["default_prompt_name"] = "query"
    write_json(tmp_path, {"config_sentence_transformers.json": settings})
    with pytest.raises(ExportError, match="puts a prompt in front of every text"):
        read_cross_encoder(tmp_path)
