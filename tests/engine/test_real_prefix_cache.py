"""Prefix reuse, forced ids and logprobs on real graphs: what no fake can prove.

A prompt whose logprobs are wanted is computed whole, so asking for them is how the same engine
answers without reuse.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from handlers.artifact.manifest import Artifact
from handlers.config import Settings
from handlers.engine.batch import Batch
from handlers.engine.engine import Engine, Generation
from handlers.engine.params import FinishReason, Logprobs, Prompt, SamplingParams
from handlers.engine.session import Session
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from tests.engine.fake_session import greedy, read
from tests.engine.test_constraint import Pattern
from tests.support.tiny_artifacts import TINY_ARTIFACTS

Ids = list[int]

DOCUMENT = [(37 * n) % 400 + 20 for n in range(60)]


def load(directory: Path, slots: int = 3, chunk: int = 16) -> Engine:
    settings = replace(Settings.from_environ({}), threads=1, slots=slots, prefill_chunk=chunk)
    return Engine.load(Artifact.open(directory), settings)


@pytest.fixture(scope="module", params=TINY_ARTIFACTS)
def tiny(request: pytest.FixtureRequest) -> Engine:
    """One engine for all examples, so that its slots hold what earlier ones have left."""
    return load(request.getfixturevalue(request.param))


def answers(generation: Generation, count: int) -> list[Ids]:
    collected: list[Ids] = [[] for _ in range(count)]
    for step in generation:
        if step.token_id is not None:
            collected[step.index].append(step.token_id)
    return collected


def whole(engine: Engine, prompt: Ids, tokens: int) -> Ids:
    """The answer to a prompt of which nothing is reused."""
    params = greedy(tokens, ignore_eos=True, prompt_logprobs=0)
    generation = engine.submit(prompt, params)
    ids, _ = read(generation)
    assert generation.stats().cached_tokens == 0
    return ids


@st.composite
def requests(draw: st.DrawFn) -> list[Ids]:
    """Prompts that share beginnings with one another and with earlier examples."""
    ends = st.lists(st.integers(3, 500), min_size=1, max_size=8)
    return [
        DOCUMENT[: draw(st.integers(0, 60))] + draw(ends) for _ in range(draw(st.integers(1, 5)))
    ]


@settings(max_examples=25)
@given(prompts=requests())
def test_reused_prompts_give_the_ids_of_prompts_computed_whole(
    tiny: Engine, prompts: list[Ids]
) -> None:
    params = greedy(8, ignore_eos=True)
    generation = tiny.submit_all([Prompt(prompt, params) for prompt in prompts])
    assert answers(generation, len(prompts)) == [whole(tiny, p, 8) for p in prompts]


@pytest.mark.parametrize(
    "artifact", ["quantised_artifact", "quantised_window_artifact", "quantised_hybrid_artifact"]
)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_each_turn_of_a_chat_computes_what_is_new_and_answers_as_a_fresh_engine_to_the_bit(
    request: pytest.FixtureRequest, artifact: str, temperature: float
) -> None:
    directory = request.getfixturevalue(artifact)
    engine = load(directory)
    talk, held = [5, 4, 3, 2, 1, *DOCUMENT[:30]], 0
    for turn in range(4):
        params = SamplingParams(21, temperature=temperature, seed=turn, ignore_eos=True, logprobs=5)
        generation = engine.submit(talk, params)
        steps = list(generation)
        assert steps == list(load(directory).submit(talk, params))
        assert generation.stats().cached_tokens == held
        held = len(talk) + 20  # the answer's last id was chosen, and not computed
        talk = [*talk, *(step.token_id for step in steps if step.token_id is not None), 7, turn]


def test_an_answer_to_the_end_of_a_context_of_no_whole_blocks_is_reused(
    quantised_artifact: Path,
) -> None:
    """45 tokens: the last block of keys has 13. The neighbour's slot takes it over by a copy."""
    settings = replace(Settings.from_environ({}), threads=1, slots=2, context_length=45)
    artifact = Artifact.open(quantised_artifact)
    params = greedy(40, ignore_eos=True, logprobs=5)
    engine = Engine.load(artifact, settings)
    ids, reason = read(engine.submit(DOCUMENT[:20], params))
    assert reason is FinishReason.CONTEXT
    assert len(ids) == 25
    talk = [*DOCUMENT[:20], *ids[:24]]
    both = engine.submit_all([Prompt(talk, params)] * 2)
    steps = list(both)
    assert [both.stats(index).cached_tokens for index in (0, 1)] == [43, 43]
    assert [step.token_id for step in steps] == [ids[24]] * 2
    alone = list(Engine.load(artifact, settings).submit(talk, params))
    assert {step.logprobs for step in steps} == {alone[0].logprobs}


def chat(directory: Path, messages: list[dict[str, str]]) -> Ids:
    artifact = Artifact.open(directory)
    template = ChatTemplate(artifact.chat_template, artifact.manifest.special_tokens)
    return Tokenizer.load(artifact.tokenizer).encode(template.render(messages))


def test_the_demo_answers_a_conversation_as_if_it_read_it_whole(demo_artifact: Path) -> None:
    engine = load(demo_artifact, slots=2, chunk=32)
    tokenizer = Tokenizer.load(Artifact.open(demo_artifact).tokenizer)
    messages: list[dict[str, str]] = []
    for question in ("Name a colour.", "And a fruit of that colour?", "Where does it grow?"):
        messages.append({"role": "user", "content": question})
        prompt = chat(demo_artifact, messages)
        generation = engine.submit(prompt, greedy(16))
        first, _ = read(generation)
        assert first == read(engine.submit(prompt, greedy(16, prompt_logprobs=0)))[0]
        new = generation.stats().prompt_tokens - generation.stats().cached_tokens
        assert new < 24 or len(messages) == 1  # a question and the template's words around it
        messages.append({"role": "assistant", "content": tokenizer.decode(first)})


def test_the_demos_logits_of_a_reused_prompt_are_the_same_to_the_bit(demo_artifact: Path) -> None:
    engine = load(demo_artifact, slots=3, chunk=32)
    prompt = chat(demo_artifact, [{"role": "user", "content": "Tell me of the sea. " * 8}])
    scored: list[Logprobs | None] = []
    for beginning in (0, 1, 2, 30, 31, 33, len(prompt) - 1, len(prompt)):
        read(engine.submit([*prompt[:beginning], 11, 12, 13], greedy(1)))
        generation = engine.submit(prompt, greedy(1, logprobs=5))
        scored += [step.logprobs for step in generation]
        assert generation.stats().cached_tokens >= min(beginning, len(prompt) - 1)
    assert len(scored) == 8
    assert len(set(scored)) == 1


@pytest.mark.parametrize("scored", [False, True])
def test_forced_ids_lead_to_what_one_by_one_would_have_led_to(tiny: Engine, scored: bool) -> None:
    forced: list[set[int]] = [{n} for n in (100, 101, 102, 103)]
    anything = set(range(tiny.vocab_size))
    pattern = Pattern([{5, 6, 7}, *forced, anything, {9}, anything], tiny.vocab_size)
    params = greedy(50, logprobs=0 if scored else None)
    (ids,) = answers(tiny.submit_all([Prompt(DOCUMENT, params, pattern)]), 1)
    assert ids[1:5] == [100, 101, 102, 103]
    (fifth,) = whole(tiny, DOCUMENT + ids[:5], 1)
    (seventh,) = whole(tiny, DOCUMENT + ids[:7], 1)
    assert (ids[5], ids[7]) == (fifth, seventh)


def test_logprobs_of_prompt_and_answer_are_those_of_one_pass_over_both(
    tiny_artifact: Path,
) -> None:
    engine = load(tiny_artifact)
    steps = list(engine.submit(DOCUMENT, greedy(9, ignore_eos=True, logprobs=3, prompt_logprobs=3)))
    ids = DOCUMENT + [step.token_id for step in steps if step.token_id is not None]
    scored = [*(steps[0].prompt_logprobs or ()), *(step.logprobs for step in steps)]
    session = Session(Artifact.open(tiny_artifact).graph, threads=1, slots=1, capacity=256)
    count = np.array([len(ids)], np.int32)
    batch = Batch(0, np.array([ids]), count, count - 1, np.arange(len(ids), dtype=np.int64))
    logits = session.step(batch).astype(np.float64)
    exact = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert scored[0] is None
    for place, tells in enumerate(scored[1:], start=1):
        row = exact[place - 1]
        assert tells is not None
        assert tells.token_id == ids[place]
        assert tells.logprob == pytest.approx(row[ids[place]], abs=1e-3)
        assert [i for i, _ in tells.top] == np.argsort(-row)[:3].tolist()


def test_an_answer_of_no_tokens_scores_its_prompt_and_nothing_else(tiny_artifact: Path) -> None:
    engine = load(tiny_artifact)
    (only,) = list(engine.submit(DOCUMENT, greedy(0, prompt_logprobs=1)))
    assert (only.token_id, only.finish_reason) == (None, FinishReason.LENGTH)
    assert len(only.prompt_logprobs or ()) == len(DOCUMENT)
