"""Drafts on real graphs: answers are to the bit what they are without."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from handlers.artifact.manifest import Artifact
from handlers.config import Settings
from handlers.engine.engine import Engine
from handlers.engine.params import Prompt, SamplingParams, Step
from tests.support.tiny_artifacts import ATTENTION_ARTIFACTS

Ids = list[int]

DOCUMENT = [(37 * n) % 400 + 20 for n in range(40)]
FEW = dict.fromkeys([20, 57, 94], 100.0)
"""A random model whose answers have three ids repeats itself, and drafts come true."""


@pytest.fixture(scope="module", params=ATTENTION_ARTIFACTS)
def engines(request: pytest.FixtureRequest) -> tuple[Engine, Engine]:
    """Without and with drafts, over one artefact; used by all examples.

    By the clock of the second all calls take the same time, so that whatever may be drafted is.
    """
    artifact = Artifact.open(request.getfixturevalue(request.param))
    base = replace(Settings.from_environ({}), threads=1, slots=3, prefill_chunk=16)
    plain, drafting = (
        Engine.load(artifact, replace(base, prompt_lookup=wanted)) for wanted in (False, True)
    )
    drafting._scheduler._clock = itertools.count().__next__
    return plain, drafting


def answers(engine: Engine, prompts: list[Prompt]) -> list[list[Step]]:
    """The steps of each prompt, logprobs and all."""
    collected: list[list[Step]] = [[] for _ in prompts]
    for step in engine.submit_all(prompts):
        collected[step.index].append(step)
    return collected


REQUESTS = st.builds(
    lambda length, times, end, params: Prompt(DOCUMENT[:length] * times + end, params),
    st.integers(0, 40),
    st.integers(1, 3),
    st.lists(st.integers(3, 500), min_size=1, max_size=6),
    st.builds(
        SamplingParams,
        max_tokens=st.sampled_from([5, 40, 250]),
        temperature=st.sampled_from([0.0, 0.3, 1.0]),
        seed=st.integers(0, 9),
        repetition_penalty=st.sampled_from([1.0, 1.0, 1.1]),
        ignore_eos=st.just(value=True),
        logit_bias=st.sampled_from([{}, FEW, FEW]),
        logprobs=st.sampled_from([None, 1]),
    ),
)


@settings(max_examples=20)
@given(prompts=st.lists(REQUESTS, min_size=1, max_size=4))
def test_drafts_change_no_bit_of_any_answer(
    engines: tuple[Engine, Engine], prompts: list[Prompt]
) -> None:
    plain, drafting = engines
    assert answers(drafting, prompts) == answers(plain, prompts)


def test_an_answer_that_repeats_itself_to_the_end_of_the_context_takes_fewer_steps(
    engines: tuple[Engine, Engine],
) -> None:
    params = SamplingParams(400, temperature=0.0, ignore_eos=True, logit_bias=FEW)
    steps = []
    for engine in engines:
        engine.submit(DOCUMENT[:3], params)
        turns = 0
        while engine.waiting + engine.running:
            engine.step()
            turns += 1
        steps.append(turns)
    plain, drafted = steps
    assert plain >= 250
    assert drafted < 0.7 * plain


@pytest.mark.parametrize(("wanted", "drafts"), [("on", True), ("", True), ("off", False)])
def test_drafts_are_made_unless_they_are_switched_off(
    quantised_artifact: Path, wanted: str, drafts: bool
) -> None:
    wish = Settings.from_environ({"KINDLING_PROMPT_LOOKUP": wanted, "KINDLING_THREADS": "1"})
    engine = Engine.load(Artifact.open(quantised_artifact), wish)
    engine._scheduler._clock = itertools.count().__next__
    engine.submit(
        DOCUMENT[:3], SamplingParams(60, temperature=0.0, ignore_eos=True, logit_bias=FEW)
    )
    turns = 0
    while engine.waiting + engine.running:
        engine.step()
        turns += 1
    assert (turns < 60) == drafts
