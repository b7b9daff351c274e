"""A recipe with a draft model becomes an artefact that has it: another model, or its own layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest

from handlers.artifact.manifest import (
    DRAFT_GRAPH,
    DRAFT_PREFIX,
    DRAFT_WEIGHTS,
    PREFIX,
    WEIGHTS,
    Artifact,
)
from model_export import pipeline
from model_export.fetch.locate import sha256_of
from model_export.recipe_loader import load_decoder_recipe
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
    assert {path.name for path in out.iterdir()} == {*artifact.manifest.files, "manifest.json"}
    return artifact


def pair(directory: Path, **options: Any) -> Path:
    """The recipe of a tiny Llama whose draft model is a tiny Qwen2, both in `directory`."""
    for name, family in (("large", "llama"), ("small", "qwen2")):
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
    assert (draft.origin.licence, draft.origin.architecture) == ("MIT", "Qwen2ForCausalLM")
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
