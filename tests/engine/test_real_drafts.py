"""A draft model on real graphs: answers are to the bit what they are without.

The draft model is the model's own graph. So it is always right where the model is greedy, as long
as its cache holds what it should.
"""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import json
from msgspec.structs import replace

from handlers.artifact.manifest import (
    DRAFT_GRAPH,
    DRAFT_PREFIX,
    DRAFT_WEIGHTS,
    GRAPH,
    MANIFEST,
    PREFIX,
    WEIGHTS,
    Artifact,
    DraftInfo,
    FileInfo,
    Manifest,
)
from handlers.config import Settings
from handlers.engine.engine import Engine
from handlers.engine.params import Prompt, SamplingParams
from handlers.errors import ArtifactError
from model_export.verify.prefix import bake
from tests.engine.test_real_speculative import DOCUMENT, REQUESTS, answers
from tests.support.baking import write_manifest
from tests.support.tiny_artifacts import ATTENTION_ARTIFACTS

BASE = replace(Settings.from_environ({}), threads=1, slots=3, prefill_chunk=16)
GREEDY = SamplingParams(60, temperature=0.0, ignore_eos=True)


def drafted(source: Path, directory: Path, layers: int) -> Artifact:
    """A copy of an artefact whose draft model has the same graph.

    `layers`: 0 for a sibling, otherwise the model's own, which must be all of them.
    """
    shutil.copytree(source, directory, dirs_exist_ok=True)
    shutil.copy(directory / GRAPH, directory / DRAFT_GRAPH)
    manifest = json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    graph, weights = manifest.files[GRAPH], manifest.files[WEIGHTS]
    files = {DRAFT_GRAPH: graph}
    if not layers:
        shutil.copy(directory / WEIGHTS, directory / DRAFT_WEIGHTS)
        files[DRAFT_WEIGHTS] = weights
    info = DraftInfo("same", layers, manifest.precision, acceptance=0.9, measured={})
    manifest = replace(manifest, draft=info, files=manifest.files | files)
    (directory / MANIFEST).write_bytes(json.encode(manifest))
    return Artifact.open(directory)


def load(artifact: Artifact, *, draft: bool, lookup: bool = False) -> Engine:
    """An engine by whose clock the model's calls take the same time, and the draft's none."""
    engine = Engine.load(artifact, replace(BASE, prompt_lookup=lookup, draft_model=draft))
    engine._scheduler._clock = itertools.count().__next__
    engine._scheduler._drafter._clock = lambda: 0.0
    return engine


@pytest.fixture(scope="module", params=itertools.product(ATTENTION_ARTIFACTS, [0, 3]))
def engines(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Engine, Engine]:
    """Without and with a draft model; used by all examples."""
    name, layers = request.param
    directory = tmp_path_factory.mktemp("drafted")
    artifact = drafted(request.getfixturevalue(name), directory, layers)
    return load(artifact, draft=False), load(artifact, draft=True, lookup=True)


@settings(max_examples=15)
@given(prompts=st.lists(REQUESTS, min_size=1, max_size=4))
def test_a_draft_model_changes_no_bit_of_any_answer(
    engines: tuple[Engine, Engine], prompts: list[Prompt]
) -> None:
    plain, drafting = engines
    assert answers(drafting, prompts) == answers(plain, prompts)


@pytest.mark.parametrize("layers", [0, 3])
@pytest.mark.parametrize("name", ["quantised_artifact", "tiny_window_artifact"])
def test_every_guess_of_a_draft_model_that_is_the_model_comes_true(
    name: str, layers: int, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    engine = load(drafted(request.getfixturevalue(name), tmp_path, layers), draft=True)
    prompt = DOCUMENT * 2
    for end in ([7], [8], [7]):  # in a slot that has held another answer, and from its prefix
        generation = engine.submit([*prompt, *end], GREEDY)
        assert len(list(generation)) == 60
        stats = generation.stats()
        assert stats.accepted_tokens == stats.drafted_tokens >= 40
    both = engine.submit_all([Prompt([*prompt, 9, n], GREEDY) for n in (1, 2)])
    assert len(list(both)) == 120
    assert all(both.stats(n).accepted_tokens == both.stats(n).drafted_tokens for n in (0, 1))


def test_a_draft_model_that_is_switched_off_is_not_loaded(
    quantised_artifact: Path, tmp_path: Path
) -> None:
    artifact = drafted(quantised_artifact, tmp_path, 0)
    (tmp_path / DRAFT_GRAPH).write_bytes(b"no graph")
    wish = Settings.from_environ({"KINDLING_DRAFT_MODEL": "off", "KINDLING_THREADS": "1"})
    generation = Engine.load(artifact, wish).submit(DOCUMENT, GREEDY)
    assert len(list(generation)) == 60
    with pytest.raises(ArtifactError, match=DRAFT_GRAPH):
        Engine.load(artifact, BASE)


@pytest.mark.parametrize("layers", [0, 3])
def test_a_model_with_a_state_takes_no_drafts(
    quantised_hybrid_artifact: Path, tmp_path: Path, layers: int, caplog: pytest.LogCaptureFixture
) -> None:
    engine = load(drafted(quantised_hybrid_artifact, tmp_path, layers), draft=True)
    generation = engine.submit(DOCUMENT, GREEDY)
    assert len(list(generation)) == 60
    assert generation.stats().drafted_tokens == 0
    assert "recurrent" in caplog.text


def test_a_sibling_copies_the_prefix_that_was_baked_for_it(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    artifact = drafted(tiny_artifact, tmp_path, 0)
    info = bake(artifact, "You are a lighthouse keeper. Be brief.", 1, draft=True)
    files = dict(artifact.manifest.files)
    for name in (PREFIX, DRAFT_PREFIX):
        files[name] = FileInfo((tmp_path / name).stat().st_size, "")
    write_manifest(tmp_path, replace(artifact.manifest, files=files, prefix=info))
    engine = load(Artifact.open(tmp_path), draft=True)
    drafter: Any = engine._scheduler._drafter
    ids = drafter._draft._runner.baked_ids.tolist()
    assert len(ids) == info.tokens == engine.baked_tokens
    generation = engine.submit([*ids, 7, 9], GREEDY)
    assert len(list(generation)) == 60
    stats = generation.stats()
    assert stats.accepted_tokens == stats.drafted_tokens >= 40
    assert drafter._draft._prefixes.cached_len(0) > info.tokens
