"""The engine's laws on a real graph, in fp32, where batching must not change an id."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace
from numpy.typing import NDArray

from handlers.artifact.manifest import Artifact
from handlers.config import Settings
from handlers.engine import session as session_module
from handlers.engine.batch import Batch
from handlers.engine.engine import Engine, Generation
from handlers.engine.params import SamplingParams
from handlers.engine.session import Session
from handlers.errors import ArtifactError
from tests.engine.fake_session import greedy, read, read_async

PROMPTS = [[5, 6, 7, 8, 9], list(range(20, 75)), [100], [7] * 30, [300, 2, 5], [9, 8]]
SEEDED = [SamplingParams(30, temperature=0.9, top_p=0.95, seed=n) for n in range(len(PROMPTS))]
GREEDY = [greedy(30, ignore_eos=True)] * len(PROMPTS)
BOTH = pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])


@pytest.fixture(scope="module")
def artifact(tiny_artifact: Path) -> Artifact:
    return Artifact.open(tiny_artifact)


def load(artifact: Artifact, **changes: Any) -> Engine:
    settings = replace(Settings.from_environ({}), threads=1, prefill_chunk=16)
    return Engine.load(artifact, replace(settings, **changes))


def alone(artifact: Artifact, params: list[SamplingParams]) -> list[list[int]]:
    engine = load(artifact, slots=1)
    return [read(engine.submit(p, s))[0] for p, s in zip(PROMPTS, params, strict=True)]


@BOTH
@pytest.mark.parametrize("slots", [2, 4, 6])
def test_batched_ids_are_the_ids_alone(
    artifact: Artifact, params: list[SamplingParams], slots: int
) -> None:
    engine = load(artifact, slots=slots)
    generations = [engine.submit(p, s) for p, s in zip(PROMPTS, params, strict=True)]
    assert [read(generation)[0] for generation in generations] == alone(artifact, params)


@BOTH
@pytest.mark.parametrize("chunk", [1, 7, 64, 1024])
def test_the_size_of_prefill_chunks_does_not_change_an_id(
    artifact: Artifact, params: list[SamplingParams], chunk: int
) -> None:
    engine = load(artifact, prefill_chunk=chunk)
    generations = [engine.submit(p, s) for p, s in zip(PROMPTS, params, strict=True)]
    assert [read(generation)[0] for generation in generations] == alone(artifact, params)


@BOTH
def test_sequences_that_join_and_leave_at_every_step_keep_their_ids(
    artifact: Artifact, params: list[SamplingParams]
) -> None:
    engine = load(artifact, slots=3)
    expected = alone(artifact, params)
    kept: list[Generation] = []
    for prompt, sampling in zip(PROMPTS, params, strict=True):
        kept.append(engine.submit(prompt, sampling))
        engine.step()
        leaver = engine.submit([11, 12], greedy(100))
        engine.step()
        leaver.cancel()
        engine.step()
    assert [read(generation)[0] for generation in kept] == expected


def test_decoding_from_the_cache_is_reading_it_all_again(artifact: Artifact) -> None:
    session = Session(artifact.graph, threads=1, slots=1, capacity=256)
    for prompt, answer in zip(PROMPTS, alone(artifact, GREEDY), strict=True):
        ids = np.array([prompt + answer[:-1]], np.int64)
        length = ids.shape[1]
        wanted = np.arange(len(prompt) - 1, length)
        seqlens = np.array([length], np.int32)
        logits = session.step(Batch(0, ids, seqlens, seqlens - 1, wanted))
        assert logits.argmax(axis=-1).tolist() == answer


def test_a_thread_serves_everybody_with_one_session_that_is_loaded_once(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[Path] = []
    callers: list[int] = []

    class Watched(Session):
        def __init__(self, graph: Path, **sizes: int) -> None:
            loads.append(graph)
            super().__init__(graph, **sizes)

        def step(self, batch: Batch) -> NDArray[np.float32]:
            callers.append(threading.get_ident())
            return super().step(batch)

    expected = alone(artifact, SEEDED)
    monkeypatch.setattr(session_module, "Session", Watched)
    engine = load(artifact)
    engine.start()

    async def everybody() -> list[Any]:
        generations = [engine.submit(p, s) for p, s in zip(PROMPTS, SEEDED, strict=True)]
        return await asyncio.gather(*map(read_async, generations))

    answers = asyncio.run(everybody())
    engine.stop()
    assert [ids for ids, _ in answers] == expected
    assert loads == [artifact.graph]
    assert len(set(callers)) == 1
    assert callers[0] != threading.get_ident()


def test_a_slot_that_others_have_used_gives_the_quantised_model_the_same_ids(
    demo_artifact: Path,
) -> None:
    engine = load(Artifact.open(demo_artifact), prefill_chunk=32)
    first = read(engine.submit(PROMPTS[1], GREEDY[1]))
    others = [engine.submit(prompt, params) for prompt, params in zip(PROMPTS, SEEDED, strict=True)]
    for generation in others:
        list(generation)
    assert read(engine.submit(PROMPTS[1], GREEDY[1])) == first


def test_the_context_is_the_shorter_of_the_models_and_the_settings(artifact: Artifact) -> None:
    assert load(artifact, context_length=100).context_length == 100
    assert load(artifact, context_length=10_000).context_length == 256


def test_a_manifest_that_contradicts_its_graph_is_refused(artifact: Artifact) -> None:
    manifest = msgspec.structs.replace(artifact.manifest, vocab_size=511)
    with pytest.raises(ArtifactError, match="512 logits where its manifest says 511"):
        load(replace(artifact, manifest=manifest))
