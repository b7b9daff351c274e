"""A broken artefact stops the process at start, with one line that says what and where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.servers import cloud_run_process, free_port, lambda_emulator


def truncate_weights(artifact: Path) -> None:
    weights = artifact / "model.onnx.data"
    weights.write_bytes(weights.read_bytes()[:-1])


def remove_tokenizer(artifact: Path) -> None:
    (artifact / "tokenizer.json").unlink()


def forget_tokenizer(artifact: Path) -> None:
    _edit_manifest(artifact, lambda manifest: manifest["files"].pop("tokenizer.json"))


def raise_schema(artifact: Path) -> None:
    _edit_manifest(artifact, lambda manifest: manifest.update(schema=99))


def damage_manifest(artifact: Path) -> None:
    (artifact / "manifest.json").write_text('{"schema": 1}')


def damage_dialect(artifact: Path) -> None:
    _edit_manifest(artifact, lambda manifest: manifest.update(dialect={"tools": {"begin": 1}}))


def damage_draft(artifact: Path) -> None:
    """Fewer than no layers: neither another model, whose cache is its own, nor the model's own."""
    draft = {"model": "it", "layers": -1, "precision": "fp32", "acceptance": 0.5, "measured": {}}
    _edit_manifest(artifact, lambda manifest: manifest.update(draft=draft))


def damage_graph(artifact: Path) -> None:
    """The right size, the wrong bytes."""
    graph = artifact / "model.onnx"
    graph.write_bytes(b"\xff" * graph.stat().st_size)


def damage_tokenizer(artifact: Path) -> None:
    tokenizer = artifact / "tokenizer.json"
    tokenizer.write_bytes(b" " * tokenizer.stat().st_size)


def damage_chat_template(artifact: Path) -> None:
    template = artifact / "chat_template.jinja"
    template.write_bytes(b"\xff" * template.stat().st_size)


def remove_everything(artifact: Path) -> None:
    shutil.rmtree(artifact)


BROKEN: dict[Callable[[Path], None], str] = {
    truncate_weights: "the copy is incomplete or changed",
    remove_tokenizer: "tokenizer.json is missing",
    forget_tokenizer: "lists no tokenizer.json",
    raise_schema: "has schema 99, but this version of Kindling reads schema 1",
    damage_manifest: "is not a manifest",
    damage_dialect: "has a dialect that cannot be read",
    damage_draft: "is not a manifest: Expected `int` >= 0 - at `$.draft.layers`",
    damage_graph: "model.onnx",
    damage_tokenizer: "tokenizer.json",
    damage_chat_template: "chat_template.jinja cannot be read",
    remove_everything: "No model at",
}

each_break = pytest.mark.parametrize(
    ("damage", "message"), BROKEN.items(), ids=[damage.__name__ for damage in BROKEN]
)


@pytest.fixture
def artifact(tiny_artifact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_artifact, tmp_path / "artifact")


@each_break
def test_cloud_run_ends_with_one_line_before_its_port_opens(
    artifact: Path, directory: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(artifact)
    with cloud_run_process(artifact, directory, free_port()) as process:
        assert process.wait() == 1
    (line,) = [line for line in process.output.splitlines() if not line.startswith("INFO:")]
    assert line.startswith("Kindling cannot start: ")
    assert message in line


@each_break
def test_lambda_reports_one_line_as_its_init_error(
    artifact: Path, directory: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(artifact)
    with lambda_emulator(artifact, directory) as emulator:
        error = emulator.invoke({"messages": []})
    assert error["errorType"] == "ArtifactError"
    assert message in error["errorMessage"]
    assert error["stackTrace"] == []
    assert f"[ERROR] ArtifactError: {error['errorMessage']}\n" in emulator.process.output


@pytest.mark.parametrize(
    ("slots", "expected"),
    [
        ("many", "KINDLING_SLOTS is 'many', but must be a whole number."),
        ("1000000000000", "KINDLING_SLOTS x KINDLING_CONTEXT_LENGTH, 1,000,000,000,000 x "),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_on_both_clouds(
    tiny_artifact: Path, directory: Path, slots: str, expected: str
) -> None:
    with cloud_run_process(tiny_artifact, directory, free_port(), KINDLING_SLOTS=slots) as process:
        assert process.wait() == 1
    assert f"Kindling cannot start: {expected}" in process.output
    assert "Traceback" not in process.output
    with lambda_emulator(tiny_artifact, directory, KINDLING_SLOTS=slots) as emulator:
        error = emulator.invoke({"messages": []})
    assert error["errorType"] == "SettingsError"
    assert error["errorMessage"].startswith(expected)


def _edit_manifest(artifact: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = artifact / "manifest.json"
    manifest = json.loads(path.read_text())
    edit(manifest)
    path.write_text(json.dumps(manifest))
