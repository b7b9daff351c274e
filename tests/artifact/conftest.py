"""A small model in each kind of store, and a cache of each test's own."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from handlers.artifact import object_store, parallel_read
from handlers.artifact.download import fetch
from handlers.artifact.manifest import Artifact, FileInfo, Manifest, ModelInfo
from tests.support.object_servers import PLACES, Place, http_place

PART = 10_000
WEIGHTS = bytes(range(251)) * 1200  # 31 parts, no two alike


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of fetched models, also for processes that a test starts."""
    directory = tmp_path / "tmp"
    directory.mkdir()
    monkeypatch.setenv("TMPDIR", str(directory))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return directory


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_read, "PART_BYTES", PART)


@pytest.fixture(params=PLACES)
def place(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> Iterator[Place]:
    """Each kind of store with a model in it, and the way to it in the environment."""
    with PLACES[request.param]() as place:
        for name, value in place.environ.items():
            monkeypatch.setenv(name, value)
        put_model(place)
        yield place


@pytest.fixture
def web(small_parts: None) -> Iterator[Place]:
    """The plainest kind of store, for what is the same with all."""
    with http_place() as place:
        put_model(place)
        yield place


@pytest.fixture
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(object_store.RETRY, "max_retries", 0)


def fetched(place: Place) -> Artifact:
    artifact, weights = fetch(place.uri)
    weights.result()
    return artifact


def put_model(place: Place, weights: bytes = WEIGHTS) -> None:
    files = model_files(weights)
    for name, content in (files | {"manifest.json": manifest_of(files)}).items():
        place.put(name, content)


def model_files(weights: bytes = WEIGHTS) -> dict[str, bytes]:
    return {
        "model.onnx.data": weights,
        "model.onnx": b"graph" * 100,
        "tokenizer.json": b"{}",
        "LICENSE": b"as is",
    }


def manifest_of(files: dict[str, bytes]) -> bytes:
    infos = {
        name: FileInfo(size=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    }
    manifest = Manifest(
        schema=1,
        task="text-generation",
        model=ModelInfo("tiny", "here", "1", "Llama", "MIT"),
        precision="fp32",
        vocab_size=1,
        context_length=1,
        eos_token_ids=(0,),
        special_tokens={},
        files=infos,
        created=0,
        versions={},
        verification={},
    )
    return msgspec.json.encode(manifest)
