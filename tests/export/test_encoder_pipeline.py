"""The whole export of tiny random encoders: from a recipe to an artefact that is served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModel, AutoTokenizer

from handlers.artifact.manifest import Artifact, EncoderInfo, Manifest
from handlers.config import Settings
from handlers.encoder.encoder import Encoder
from handlers.encoder.request import EncoderInput
from handlers.text.tokenizer import Tokenizer
from model_export.encoder.reference import make_reference
from model_export.encoder.source import fetch_encoder
from model_export.fetch.locate import sha256_of
from model_export.pipeline import export as run_export
from model_export.recipe import EncoderRecipe
from model_export.recipe_loader import load_recipe
from model_export.reporting import ExportError
from tests.support.reports import ignore
from tests.support.tiny_encoder_folder import (
    POSITIONS,
    SENTENCE_TRANSFORMER,
    modules_json,
    save_decoder_made_folder,
    save_encoder_folder,
    write_json,
)
from tests.support.tiny_tokenizers import END_OF_TEXT

ROOT = Path(__file__).parent.parent.parent
RECIPE = """
[model]
id = "Tiny"
licence = "Apache-2.0"

[source]
path = "source"

[export]
task = "{task}"
{export}

[precision]
weights = "int8"

[tolerance]
{tolerance}
"""
COSINES = "min_mean_cosine = 0.9\nmin_cosine = 0.9"
SCORES = "min_top1_agreement = 0.5\nmax_score_difference = 2.0"
IDENTITY = "torch.nn.modules.linear.Identity"


def write_recipe(
    directory: Path, task: str, tolerance: str | None = None, export: str = ""
) -> Path:
    path = directory / "tiny.toml"
    tolerance = tolerance or (COSINES if task == "feature-extraction" else SCORES)
    path.write_text(RECIPE.format(task=task, tolerance=tolerance, export=export), encoding="utf-8")
    return path


def recipe_of(directory: Path, task: str, export: str = "") -> EncoderRecipe:
    recipe = load_recipe(str(write_recipe(directory, task, export=export)))
    assert isinstance(recipe, EncoderRecipe)
    return recipe


def exported(directory: Path, task: str, export: str = "") -> Manifest:
    run_export(recipe_of(directory, task, export), directory / "out", ignore)
    manifest = Artifact.open(directory / "out").manifest
    for name, info in manifest.files.items():
        assert sha256_of(directory / "out" / name) == info.sha256
    assert set(manifest.verification) == {"tokens", "exact", "drift"}
    return manifest


def refusal(directory: Path, task: str, export: str = "") -> str:
    with pytest.raises(ExportError) as raised:
        exported(directory, task, export)
    assert not (directory / "out").exists()
    return str(raised.value)


def change_config(directory: Path, changes: Mapping[str, Any]) -> None:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    write_json(directory, {"config.json": config | dict(changes)})


def test_a_sentence_transformer_becomes_an_artefact_that_embeds(tmp_path: Path) -> None:
    save_encoder_folder(tmp_path / "source", files=SENTENCE_TRANSFORMER)
    manifest = exported(tmp_path, "feature-extraction")
    assert manifest.task == "feature-extraction"
    assert manifest.encoder == EncoderInfo(
        dimensions=64,
        max_tokens=96,
        prompts={"query": "query: ", "document": ""},
        default_prompt="query",
    )
    assert manifest.precision == "int8 block 32"
    assert manifest.verification["exact"]["largest_error"] < 1e-5
    assert manifest.verification["drift"]["min_cosine"] < 1.0
    assert (tmp_path / "out" / "LICENSE").read_text() == "The tiny licence.\n"
    artifact = Artifact.open(tmp_path / "out")
    (encoded,) = Tokenizer.load(artifact.tokenizer).encode_all(["A ferry leaves at seven."])
    settings = Settings.from_environ({"KINDLING_THREADS": "1"})
    rows = Encoder.load(artifact, settings).encode([EncoderInput(encoded.ids, encoded.type_ids)])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [1.0], rtol=1e-6)


def test_a_decoder_made_into_an_embedder_takes_the_last_token_which_ends_every_text(
    tmp_path: Path,
) -> None:
    """As of Qwen3-Embedding: transformers embeds a batch that is padded on the left."""
    folder = save_decoder_made_folder(tmp_path / "source")
    manifest = exported(tmp_path, "feature-extraction", "max_tokens = 40")
    assert manifest.encoder is not None
    assert manifest.encoder.prompts == {"query": "Find what answers:", "document": ""}
    artifact = Artifact.open(tmp_path / "out")
    tokenizer = Tokenizer.load(artifact.tokenizer)
    texts = ["A ferry.", "The keeper wound the clock and counted ships.", "Once upon a time " * 20]
    encoded = [tokenizer.encode_truncated(text, 40) for text in texts]
    assert [each.ids[-1] for each in encoded] == [END_OF_TEXT] * 3
    assert len(encoded[2].ids) == 40
    settings = Settings.from_environ({"KINDLING_THREADS": "1"})
    found = Encoder.load(artifact, settings).encode(
        [EncoderInput(each.ids, each.type_ids) for each in encoded]
    )
    source: Any = AutoTokenizer.from_pretrained(folder)
    batch = source(texts, padding=True, truncation=True, max_length=40, return_tensors="pt")
    assert batch["attention_mask"][0, 0] == 0
    with torch.no_grad():
        last = AutoModel.from_pretrained(folder).eval()(**batch).last_hidden_state[:, -1]
    expected = torch.nn.functional.normalize(last).numpy()
    assert (found * expected).sum(axis=1).min() > 0.99
    assert (expected[0] * expected[1]).sum() < 0.9


def test_a_classifier_brings_its_labels_and_its_activation(tmp_path: Path) -> None:
    save_encoder_folder(tmp_path / "source", "distilbert", labels=3)
    change_config(tmp_path / "source", {"id2label": {"0": "sad", "1": "plain", "2": "glad"}})
    manifest = exported(tmp_path, "text-classification")
    assert manifest.encoder == EncoderInfo(
        dimensions=0,
        max_tokens=POSITIONS,
        labels=("sad", "plain", "glad"),
        activation="softmax",
    )
    assert manifest.verification["drift"]["inputs"] == 160


def test_a_ranker_scores_pairs_as_its_config_says(tmp_path: Path) -> None:
    save_encoder_folder(tmp_path / "source", labels=1)
    change_config(tmp_path / "source", {"sentence_transformers": {"activation_fn": IDENTITY}})
    manifest = exported(tmp_path, "text-ranking", export="max_tokens = 64")
    assert manifest.encoder is not None
    assert (manifest.encoder.labels, manifest.encoder.activation) == (("LABEL_0",), "none")
    assert manifest.encoder.max_tokens == 64
    assert manifest.verification["drift"]["inputs"] == 96


def test_texts_are_really_cut_and_one_is_as_long_as_the_model_takes(tmp_path: Path) -> None:
    save_encoder_folder(tmp_path / "source", labels=1)
    source = fetch_encoder(recipe_of(tmp_path, "text-ranking"), ignore)

    reference = make_reference(source, "text-ranking")

    assert list(reference.cut) == [32, POSITIONS]
    full = sum(len(encoded.ids) == 32 for encoded in reference.cut[32])
    assert full > len(reference.whole) / 2
    assert len(reference.longest.encoded.ids) == POSITIONS
    assert len(reference.longest.encoded.texts) == 2


def test_more_tokens_than_the_model_has_positions_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_encoder_folder(tmp_path / "source", "roberta")  # takes two fewer than it has
    monkeypatch.setattr("model_export.encoder.source._positions", lambda _: POSITIONS)

    said = refusal(tmp_path, "feature-extraction", 'pooling = "mean"\nnormalize = true')

    assert said.startswith("The model takes no 130 tokens")


@pytest.mark.parametrize(
    ("task", "changes", "labels", "activation"),
    [
        ("text-classification", {}, 1, "sigmoid"),
        ("text-classification", {"problem_type": "regression"}, 1, "none"),
        ("text-ranking", {"problem_type": "regression"}, 1, "sigmoid"),
        ("text-classification", {"problem_type": "multi_label_classification"}, 3, "sigmoid"),
        ("text-ranking", {"sbert_ce_default_activation_function": IDENTITY}, 1, "none"),
    ],
)
def test_what_makes_scores_of_logits_is_read_off_the_config(
    tmp_path: Path, task: str, changes: dict[str, Any], labels: int, activation: str
) -> None:
    from model_export.encoder.source import fetch_encoder

    save_encoder_folder(tmp_path / "source", labels=labels)
    change_config(tmp_path / "source", changes)
    recipe = load_recipe(str(write_recipe(tmp_path, task)))
    assert isinstance(recipe, EncoderRecipe)
    assert fetch_encoder(recipe, ignore).info.activation == activation


def test_a_transformer_alone_is_pooled_as_the_recipe_says(tmp_path: Path) -> None:
    save_encoder_folder(tmp_path / "source", "roberta")
    said = refusal(tmp_path, "feature-extraction")
    assert 'name it in [export], such as pooling = "mean"' in said
    manifest = exported(tmp_path, "feature-extraction", 'pooling = "cls"\nnormalize = false')
    assert manifest.encoder is not None
    assert manifest.encoder.max_tokens == POSITIONS - 2  # RoBERTa's positions begin behind padding


def test_a_model_that_says_how_it_pools_is_not_contradicted(tmp_path: Path) -> None:
    save_encoder_folder(tmp_path / "source", files=SENTENCE_TRANSFORMER)
    assert "leave pooling and normalize out" in refusal(
        tmp_path, "feature-extraction", 'pooling = "cls"\nnormalize = true'
    )


def test_a_classifier_without_weights_for_its_labels_is_refused(tmp_path: Path) -> None:
    save_encoder_folder(tmp_path / "source")  # transformers would draw them at random
    assert "its files lack classifier.bias, classifier.weight" in refusal(
        tmp_path, "text-classification"
    )


def test_a_transformer_of_which_a_layer_is_missing_is_refused(tmp_path: Path) -> None:
    save_encoder_folder(tmp_path / "source", files=SENTENCE_TRANSFORMER)
    path = tmp_path / "source" / "model.safetensors"
    weights = load_file(path)
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    assert "lack encoder.layer.1.output.dense.weight" in refusal(tmp_path, "feature-extraction")


@pytest.mark.parametrize(
    ("labels", "task", "export", "said"),
    [
        (3, "text-ranking", "", "this model 3 (LABEL_0, LABEL_1, LABEL_2)"),
        (1, "text-ranking", "max_tokens = 131", "has positions for 130"),
    ],
)
def test_a_task_that_the_model_does_not_have_is_refused(
    tmp_path: Path, labels: int, task: str, export: str, said: str
) -> None:
    save_encoder_folder(tmp_path / "source", labels=labels)
    assert said in refusal(tmp_path, task, export)


def tokenizer_config(folder: Path, **changes: Any) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8")) | changes
    write_json(folder, {path.name: config})


def test_a_default_prompt_that_is_not_among_the_prompts_is_refused(tmp_path: Path) -> None:
    settings = {"prompts": {"document": ""}, "default_prompt_name": "query"}
    files = {**SENTENCE_TRANSFORMER, "config_sentence_transformers.json": settings}
    save_encoder_folder(tmp_path / "source", files=files)
    said = refusal(tmp_path, "feature-extraction")
    assert "default_prompt_name 'query', which is none of its prompts: document" in said


def test_a_model_that_does_not_say_how_long_a_text_may_be_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model_export.encoder.source._positions", lambda _: None)  # as XLNet's
    save_encoder_folder(tmp_path / "source", labels=1)
    tokenizer_config(tmp_path / "source", model_max_length=10**30)
    assert "name it in [export] max_tokens" in refusal(tmp_path, "text-ranking")


def test_capitals_that_the_tokenizer_keeps_apart_are_refused_where_none_are_meant(
    tmp_path: Path,
) -> None:
    folder = save_encoder_folder(tmp_path / "source", files=SENTENCE_TRANSFORMER)
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["normalizer"]["lowercase"] = False
    write_json(folder, {path.name: tokenizer})
    assert "(do_lower_case), which the tokenizer does not make" in refusal(
        tmp_path, "feature-extraction"
    )


def test_an_activation_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    save_encoder_folder(tmp_path / "source", labels=1)
    change_config(tmp_path / "source", {"sentence_transformers": {"activation_fn": "my.Own"}})
    assert "make scores by my.Own" in refusal(tmp_path, "text-ranking")


def test_a_ranker_of_several_modules_is_refused(tmp_path: Path) -> None:
    modules = {"modules.json": modules_json("Dense")}
    save_encoder_folder(tmp_path / "source", labels=1, files=modules)
    assert "source/modules.json has 2 modules" in refusal(tmp_path, "text-ranking")


def test_a_gate_that_fails_is_one_line_on_the_command_line(tmp_path: Path) -> None:
    save_encoder_folder(tmp_path / "source", files=SENTENCE_TRANSFORMER)
    strict = "min_mean_cosine = 1.0\nmin_cosine = 1.0"
    recipe = write_recipe(tmp_path, "feature-extraction", strict)
    before = set(tmp_path.iterdir())
    command = [sys.executable, "-m", "model_export", str(recipe), "--out", str(tmp_path / "out")]
    ended = subprocess.run(
        command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: Gate 3 failed: the quantised graph's mean cosine")
    assert len(ended.stderr.splitlines()) == 1
    assert set(tmp_path.iterdir()) == before
    steps = [line[11:].partition(" ")[0].rstrip(":,") for line in ended.stdout.splitlines()]
    assert steps == ["load", "reference", "convert", "quantize", *["verify"] * 3]
