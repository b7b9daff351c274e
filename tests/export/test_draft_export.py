"""A recipe with a draft model becomes an artefact that has it: another model, or its own layers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from transformers import AutoModelForCausalLM

from handlers.artifact.manifest import (
    DRAFT_GRAPH,
    DRAFT_PREFIX,
    DRAFT_WEIGHTS,
    MANIFEST,
    PREFIX,
    WEIGHTS,
    Artifact,
    parse_manifest,
)
from handlers.errors import ArtifactError
from model_export import pipeline
from model_export.fetch.locate import sha256_of
from model_export.recipe_loader import load_decoder_recipe
from model_export.reporting import ExportError
from model_export.verify.launch import verify
from scripts.images import model_labels
from tests.support.graph_runner import GraphRunner
from tests.support.reports import ignore
from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_models import CONTEXT_LENGTH

RECIPE = """
[model]
id = "{name}"
licence = "{licence}"

[source]
path = "{name}"

[export]
context_length = {context_length}

[precision]
weights = "{weights}"

[tolerance]
max_kl = 9.0
min_top1_agreement = 0.0
max_perplexity_ratio = 9.0
"""
PROMPT = [5, 9, 44, 101, 260]


def write_recipe(
    directory: Path,
    name: str,
    draft: str = "",
    weights: str = "int8",
    licence: str = "Apache-2.0",
    context_length: int = CONTEXT_LENGTH,
) -> Path:
    path = directory / f"{name}.toml"
    text = RECIPE.format(name=name, weights=weights, licence=licence, context_length=context_length)
    path.write_text(text + draft, encoding="utf-8")
    return path


def exported(path: Path, report: Any = ignore) -> Artifact:
    """The artefact beside its recipe."""
    out = path.with_name("out")
    pipeline.export(load_decoder_recipe(str(path)), out, report)
    artifact = Artifact.open(out)
    for name, info in artifact.manifest.files.items():
        assert sha256_of(out / name) == info.sha256
    assert {path.name for path in out.iterdir()} == {*artifact.manifest.files, MANIFEST}
    return artifact


def pair(directory: Path, **options: Any) -> Path:
    """The recipe of a tiny Llama whose draft model is a tiny Qwen3, both in `directory`.

    Not Qwen2, to which transformers 5 gives a tokenizer of its own.
    """
    for name, family in (("large", "llama"), ("small", "qwen3")):
        save_tiny_folder(directory / name, family)
    (directory / "small" / "LICENSE").write_text("The small one's licence.\n", encoding="utf-8")
    write_recipe(directory, "small", licence="MIT", context_length=64)
    return write_recipe(directory, "large", DRAFTED, **options)


DRAFTED = """
[prefix]
system_prompt = "You are a lighthouse keeper."

[draft]
recipe = "small.toml"
min_gain = 0.0
"""


def files_of(graph: Path) -> set[str]:
    """The files in which a graph's tensors lie."""
    tensors = onnx.load(graph, load_external_data=False).graph.initializer
    return {each.value for t in tensors for each in t.external_data if each.key == "location"}


@pytest.mark.parametrize("weights", ["int8", "auto"])
def test_the_first_layers_become_the_draft_model(tmp_path: Path, weights: str) -> None:
    save_tiny_folder(tmp_path / "large", "qwen3")
    drafted = "[draft]\nlayers = 2\nmin_gain = 0.0\n"
    artifact = exported(write_recipe(tmp_path, "large", drafted, weights))
    draft = artifact.manifest.draft
    assert draft is not None
    assert (draft.model, draft.layers, draft.origin) == ("large", 2, None)
    assert draft.precision == artifact.manifest.precision
    assert draft.measured["gain"] > 0
    assert DRAFT_WEIGHTS not in artifact.manifest.files
    assert files_of(artifact.directory / DRAFT_GRAPH) == {WEIGHTS}
    GraphRunner(artifact.directory / DRAFT_GRAPH, 1, 16).step([PROMPT])


def test_another_recipes_model_becomes_the_draft_model(tmp_path: Path) -> None:
    lines: list[str] = []
    artifact = exported(pair(tmp_path), lines.append)
    draft = artifact.manifest.draft
    assert draft is not None
    assert draft.origin is not None
    assert (draft.model, draft.layers, draft.precision) == ("small", 0, "int8 block 32")
    assert (draft.origin.licence, draft.origin.architecture) == ("MIT", "Qwen3ForCausalLM")
    assert files_of(artifact.directory / DRAFT_GRAPH) == {DRAFT_WEIGHTS}
    assert files_of(artifact.graph) == {WEIGHTS}
    shares = draft.measured["acceptance"]
    assert draft.acceptance == pytest.approx((shares["text"] + shares["chats"]) / 2)
    assert artifact.manifest.prefix is not None
    assert {DRAFT_GRAPH, DRAFT_WEIGHTS} < artifact.manifest.prefix.computed_with.keys()
    assert {PREFIX, DRAFT_PREFIX} < artifact.manifest.files.keys()
    licence = (artifact.directory / "draft.LICENSE").read_text(encoding="utf-8")
    assert licence == "The small one's licence.\n"
    assert (artifact.directory / "LICENSE").read_text(encoding="utf-8") == "The tiny licence.\n"
    assert any(line.startswith("draft: verify: gate 3") for line in lines)
    text = (artifact.directory / MANIFEST).read_bytes()
    labels = model_labels(text)
    assert labels["kindling.draft.licence"] == "MIT"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0 AND MIT"
    incomplete = json.loads(text)
    del incomplete["files"][DRAFT_WEIGHTS]
    with pytest.raises(ArtifactError, match=r"lists no draft\.onnx\.data"):
        parse_manifest(json.dumps(incomplete).encode(), "it")


def interrupt(monkeypatch: pytest.MonkeyPatch, path: Path, call: int) -> None:
    """Exports `path` up to the verification of this number, which Ctrl-C ends."""
    calls = iter(range(call + 1))

    def interrupted(*given: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return verify(*given)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "verify", interrupted)
        with pytest.raises(KeyboardInterrupt):
            pipeline.export(load_decoder_recipe(str(path)), path.with_name("out"), ignore)


def test_an_export_that_was_stopped_in_its_draft_model_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pair(tmp_path)
    interrupt(monkeypatch, path, 0)
    lines: list[str] = []
    exported(path, lines.append)
    assert "draft: go on with the export that was interrupted" in lines
    assert not [line for line in lines if line.startswith("draft: reference")]
    assert [line for line in lines if line.startswith("reference")]


@pytest.mark.parametrize("changed", [False, True])
def test_a_draft_model_is_made_again_only_where_its_recipe_has_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    path = pair(tmp_path)
    interrupt(monkeypatch, path, 1)
    if changed:
        write_recipe(tmp_path, "small", weights="int5", licence="MIT")
    lines: list[str] = []
    draft = exported(path, lines.append).manifest.draft
    assert draft is not None
    assert draft.precision == ("int5 block 32" if changed else "int8 block 32")
    assert any(line.startswith("draft: reference") for line in lines) == changed
    assert not [line for line in lines if line.startswith("reference")]


def refusal(path: Path) -> str:
    """The sentence of an export that is refused before anything is computed."""
    lines: list[str] = []
    before = set(path.parent.iterdir())
    with pytest.raises(ExportError) as raised:
        pipeline.export(load_decoder_recipe(str(path)), path.with_name("out"), lines.append)
    assert {line.partition(" ")[0] for line in lines} <= {"load", "draft:"}
    assert not [line for line in lines if "reference" in line]
    assert set(path.parent.iterdir()) == before
    return str(raised.value)


def change_tokenizer(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content["model"])
    path.write_text(json.dumps(content), encoding="utf-8")


def swap(model: dict[str, Any]) -> None:
    names = {number: token for token, number in model["vocab"].items()}
    model["vocab"][names[400]], model["vocab"][names[401]] = 401, 400


def rename(model: dict[str, Any]) -> None:
    names = {number: token for token, number in model["vocab"].items()}
    model["vocab"]["\u0120unknown"] = model["vocab"].pop(names[511])
    model["merges"].pop()


def split(model: dict[str, Any]) -> None:
    model["merges"] = []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swap, r"the token '.+' is 400 in the model, and 401 in it"),
        (rename, r"the token '.+', 511 in the model, is none of its own"),
        (split, r"for '.+' the model's ids from position \d+ are \[\d.*\], and its own \[\d.*\]"),
    ],
)
def test_a_draft_model_of_another_tokenizer_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    path = pair(tmp_path)
    change_tokenizer(tmp_path / "small", change)
    assert re.search(
        rf"\[draft\] recipe .*small\.toml: its tokenizer is not .*{said}", refusal(path)
    )


def test_a_draft_model_without_a_row_for_every_token_is_refused(tmp_path: Path) -> None:
    path = pair(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    model.resize_token_embeddings(500)
    model.save_pretrained(tmp_path / "small")
    assert "500, is beyond its 500 embeddings" in refusal(path)


def test_a_draft_model_with_more_rows_may_pad_them(tmp_path: Path) -> None:
    path = pair(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "small")
    model.resize_token_embeddings(544)
    model.save_pretrained(tmp_path / "small")
    draft = exported(path).manifest.draft
    assert draft is not None


def test_a_draft_model_of_a_shorter_context_is_refused(tmp_path: Path) -> None:
    path = pair(tmp_path)
    config = tmp_path / "small" / "config.json"
    text = config.read_text(encoding="utf-8").replace(
        f'"max_position_embeddings": {CONTEXT_LENGTH}', '"max_position_embeddings": 128'
    )
    config.write_text(text, encoding="utf-8")
    assert "it has positions for 128 tokens, and [export] context_length is 256" in refusal(path)


def test_as_many_layers_as_the_model_has_are_refused(tmp_path: Path) -> None:
    save_tiny_folder(tmp_path / "large", "llama")
    path = write_recipe(tmp_path, "large", "[draft]\nlayers = 3\n")
    assert "[draft] layers is 3, and the model has 3: name fewer" in refusal(path)
