"""The baked prefix on real graphs: nobody can tell from the answer, and when it is refused."""

from __future__ import annotations

import logging
from pathlib import Path

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from handlers.artifact.manifest import PREFIX, Artifact, FileInfo, Manifest, PrefixInfo
from handlers.config import Settings
from handlers.engine.batch import Batch
from handlers.engine.engine import Engine
from handlers.engine.prefix_cache import open_prefix
from handlers.engine.session import Session, kernel_versions
from handlers.errors import ArtifactError
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from model_export.verify.prefix import common_ids
from tests.engine.fake_session import greedy, read
from tests.support.baking import bake_copy, unbaked_copy, write_manifest

SYSTEM = "You are a lighthouse keeper. Answer briefly, and say so when you do not know."
OTHER = "You are a lighthouse. Shine."
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}

ATTENTION = ("tiny_artifact", "tiny_window_artifact", "demo_artifact")
HYBRIDS = ("tiny_hybrid_artifact", "quantised_hybrid_artifact")


def load(directory: Path, context_length: int = 256) -> Engine:
    settings = Settings.from_environ({"KINDLING_THREADS": "1", "KINDLING_SLOTS": "2"})
    return Engine.load(Artifact.open(directory), replace(settings, context_length=context_length))


@pytest.fixture(scope="module", params=[*ATTENTION, *HYBRIDS])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    artifact = request.getfixturevalue(request.param)
    return unbaked_copy(artifact, tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="module")
def baked(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bake_copy(plain, tmp_path_factory.mktemp("baked") / "model", SYSTEM)


@pytest.fixture
def changeable(tiny_artifact: Path, tmp_path: Path) -> Path:
    return bake_copy(tiny_artifact, tmp_path / "model", SYSTEM)


def chat(directory: Path, system: str, question: str, tools: bool = False) -> list[int]:
    artifact = Artifact.open(directory)
    messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    prompt = ChatTemplate.of(artifact).render(messages, [WEATHER] if tools else None)
    return Tokenizer.load(artifact.tokenizer).encode(prompt)


def baked_tokens(directory: Path) -> int:
    info = Artifact.open(directory).manifest.prefix
    assert info is not None
    return info.tokens


def last_logits(session: Session, slot: int, ids: list[int], past: int) -> NDArray[np.float32]:
    count = np.array([len(ids) - past], np.int32)
    batch = Batch(slot, np.array([ids[past:]]), count, count + past - 1, count.astype(np.int64) - 1)
    return session.step(batch).copy()


@pytest.mark.parametrize("question", ["What is the weather like?", "7", "\nA ship?"])
def test_the_first_chat_is_answered_as_if_nothing_were_baked(
    plain: Path, baked: Path, question: str
) -> None:
    prompt = chat(plain, SYSTEM, question)
    params = greedy(12, ignore_eos=True, logprobs=3)
    generation = load(baked).submit(prompt, params)
    assert list(generation) == list(load(plain).submit(prompt, params))
    tokens = baked_tokens(baked)
    assert generation.stats().cached_tokens in (tokens - 1, tokens)


def test_its_logits_are_those_of_a_prompt_computed_whole_to_the_bit(
    plain: Path, baked: Path
) -> None:
    artifact = Artifact.open(baked)
    session = Session(artifact.graph, threads=1, slots=2, capacity=128)
    prefix = open_prefix(artifact, 128, kernel_versions)
    assert prefix is not None
    session.attach_prefix(prefix)
    tokens = len(prefix.ids)
    prompt = chat(plain, SYSTEM, "What is the weather like?")
    session.copy_prefix(2, 1, 0, tokens)
    reused = last_logits(session, 1, prompt, past=tokens)
    np.testing.assert_array_equal(reused, last_logits(session, 0, prompt, past=0))


@pytest.mark.parametrize("plain", ATTENTION, indirect=True)
def test_another_system_message_reuses_what_it_shares_and_no_more(baked: Path) -> None:
    prompt = chat(baked, OTHER, "What is the weather like?")
    ids = common_ids(Artifact.open(baked), SYSTEM)
    shared = next(n for n, (a, b) in enumerate(zip(ids, prompt, strict=False)) if a != b)
    generation = load(baked).submit(prompt, greedy(1))
    read(generation)
    assert 0 < shared == generation.stats().cached_tokens < baked_tokens(baked)


@pytest.mark.parametrize("plain", HYBRIDS, indirect=True)
def test_another_system_message_reuses_nothing_of_a_state(plain: Path, baked: Path) -> None:
    """A state cannot be cut back to where the two system messages part."""
    prompt, params = chat(baked, OTHER, "What is the weather like?"), greedy(8, logprobs=3)
    generation = load(baked).submit(prompt, params)
    assert list(generation) == list(load(plain).submit(prompt, params))
    assert generation.stats().cached_tokens == 0


def test_a_chat_with_tools_is_computed_from_where_its_system_message_differs(
    plain: Path, baked: Path
) -> None:
    prompt = chat(plain, SYSTEM, "What is the weather like?", tools=True)[:240]
    generation = load(baked).submit(prompt, greedy(8))
    expected = load(plain).submit(prompt, greedy(8))
    assert read(generation) == read(expected)
    assert generation.stats().cached_tokens < baked_tokens(baked)


def refused(caplog: pytest.LogCaptureFixture, directory: Path, context_length: int = 256) -> str:
    """The warning of an engine that serves without the prefix."""
    with caplog.at_level(logging.WARNING, "handlers"):
        engine = load(directory, context_length)
    assert engine.baked_tokens == 0
    generation = engine.submit(chat(directory, SYSTEM, "?")[-16:], greedy(4, ignore_eos=True))
    assert len(read(generation)[0]) == 4
    (record,) = caplog.records
    return record.getMessage()


def change(directory: Path, **fields: object) -> None:
    manifest = Artifact.open(directory).manifest
    write_manifest(directory, msgspec.structs.replace(manifest, **fields))


def computed_with(manifest: Manifest, **others: str) -> PrefixInfo:
    assert manifest.prefix is not None
    return msgspec.structs.replace(
        manifest.prefix, computed_with=manifest.prefix.computed_with | others
    )


@pytest.mark.parametrize(
    "name", ["model.onnx", "model.onnx.data", "tokenizer.json", "chat_template.jinja"]
)
def test_a_prefix_of_other_weights_or_another_template_is_refused(
    changeable: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    files = Artifact.open(changeable).manifest.files
    other = FileInfo(size=files[name].size, sha256="0" * 64)
    change(changeable, files=files | {name: other})
    assert refused(caplog, changeable) == (
        f"The baked prefix is not used: {name} is not the one that it was computed with. "
        f"Export the model again."
    )


def test_a_prefix_without_the_template_that_it_was_made_with_is_refused(
    changeable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = dict(Artifact.open(changeable).manifest.files)
    del files["chat_template.jinja"]
    change(changeable, files=files)
    assert "chat_template.jinja is not the one" in refused(caplog, changeable)


def test_a_prefix_of_another_runtime_version_is_refused(
    changeable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prefix = computed_with(Artifact.open(changeable).manifest, onnxruntime="1.31.0")
    change(changeable, prefix=prefix)
    assert refused(caplog, changeable) == (
        f"The baked prefix is not used: it was computed with onnxruntime 1.31.0, and this process "
        f"has {kernel_versions()['onnxruntime']}. Export the model again with the version that "
        f"serves."
    )


def test_a_prefix_of_kernels_that_this_process_lacks_is_refused(
    changeable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    change(changeable, prefix=computed_with(Artifact.open(changeable).manifest, faster="2.0"))
    assert "computed with faster 2.0, and this process has none" in refused(caplog, changeable)


def test_a_prefix_that_the_context_does_not_hold_is_refused(
    changeable: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert refused(caplog, changeable, context_length=20) == (
        f"The baked prefix is not used: it has {baked_tokens(changeable)} tokens, and "
        f"KINDLING_CONTEXT_LENGTH is 20. Raise it."
    )


def test_a_context_of_one_token_more_holds_it(changeable: Path) -> None:
    tokens = baked_tokens(changeable)
    assert load(changeable, context_length=tokens + 1).baked_tokens == tokens


@pytest.mark.parametrize("size", [0, 8, 4096, 4099])
def test_a_file_of_another_size_is_an_error_at_start(changeable: Path, size: int) -> None:
    """Also one that the manifest agrees with."""
    manifest = Artifact.open(changeable).manifest
    path = changeable / PREFIX
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ArtifactError, match="the copy is incomplete or changed"):
        load(changeable)
    files = manifest.files | {PREFIX: FileInfo(size=size, sha256="")}
    write_manifest(changeable, msgspec.structs.replace(manifest, files=files))
    with pytest.raises(ArtifactError, match="Export the model again"):
        load(changeable)


def test_a_manifest_that_names_a_prefix_but_lists_no_file_is_an_error(changeable: Path) -> None:
    files = dict(Artifact.open(changeable).manifest.files)
    del files[PREFIX]
    change(changeable, files=files)
    with pytest.raises(ArtifactError, match=r"lists no prefix\.kv"):
        load(changeable)
