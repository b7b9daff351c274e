"""Tests what of a generation_config.json becomes a default, and what is told and left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from handlers.artifact.manifest import Manifest, SamplingDefaults, parse_manifest
from handlers.errors import ArtifactError
from model_export.decoder.generation_config import sampling_defaults, unsupported_defaults
from model_export.fetch.load import fetch
from model_export.recipe import FolderSource
from model_export.reporting import ExportError
from tests.api.client import MANIFEST
from tests.support.reports import ignore
from tests.support.tiny_folder import save_tiny_folder

QWEN3 = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "eos_token_id": [3, 5]}


@pytest.mark.parametrize(
    ("config", "defaults", "left_out"),
    [
        ({}, {}, None),
        (QWEN3, {"temperature": 0.6, "top_k": 20, "top_p": 0.95}, None),
        ({"top_k": 50, "min_p": 0.05, "repetition_penalty": 1.05}, None, None),
        ({"do_sample": False, "temperature": 0}, {"temperature": 0}, "do_sample False"),
        ({"temperature": None, "top_k": None, "top_p": None}, {}, None),
        ({"top_k": -1, "typical_p": 1.0, "num_beams": 1}, {"top_k": 0}, None),
        ({"top_k": 0, "eta_cutoff": 0.0, "max_length": 20}, {"top_k": 0}, None),
        ({"temperature": 3.5, "top_k": 20}, {"top_k": 20}, "temperature 3.5"),
        ({"top_p": 0, "repetition_penalty": -1}, {}, "top_p 0, repetition_penalty -1"),
        ({"top_k": 2.5, "temperature": "warm"}, {}, "temperature 'warm', top_k 2.5"),
        ({"temperature": True}, {}, "temperature True"),
        ({"typical_p": 0.9, "eta_cutoff": 0.1}, {}, "typical_p 0.9, eta_cutoff 0.1"),
        ({"num_beams": 4, "max_new_tokens": 2048}, {}, "num_beams 4, max_new_tokens 2048"),
    ],
)
def test_what_a_request_may_send_is_a_default_and_the_rest_is_told(
    config: dict[str, Any], defaults: dict[str, Any] | None, left_out: str | None
) -> None:
    assert sampling_defaults(config).given == (config if defaults is None else defaults)
    line = unsupported_defaults(config)
    assert (line and line.rpartition(" are ")[2]) == left_out


def test_it_is_read_from_the_folder_as_it_is(tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path)
    (folder / "generation_config.json").write_text(json.dumps(QWEN3 | {"top_k": 50}))
    loaded = fetch(FolderSource(path=folder), ignore)
    assert loaded.generation_config["top_k"] == 50
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(ExportError, match=r"generation_config\.json cannot be read"):
        fetch(FolderSource(path=folder), ignore)


def test_an_older_manifest_has_none_and_a_broken_one_is_refused() -> None:
    files = {"model.onnx": {"size": 1, "sha256": ""}, "tokenizer.json": {"size": 1, "sha256": ""}}
    older = msgspec.json.decode(msgspec.json.encode(MANIFEST)) | {"files": files}
    del older["sampling"]
    assert _read(older).sampling == SamplingDefaults()
    with pytest.raises(ArtifactError, match="temperature"):
        _read(older | {"sampling": {"temperature": 9}})


def _read(manifest: dict[str, Any]) -> Manifest:
    return parse_manifest(msgspec.json.encode(manifest), "manifest.json")
