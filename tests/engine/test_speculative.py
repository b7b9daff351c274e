"""The invariant of drafts: an answer, its end and its logprobs are what they are without any."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from collections.abc import Sequence as Items
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from handlers.engine.batch import Batch
from handlers.engine.draft_model import DraftModel
from handlers.engine.ngram_proposer import propose
from handlers.engine.params import MAX_DRAFT_TOKENS, FinishReason, Prompt, SamplingParams, Step
from handlers.engine.request_validator import RequestValidator
from handlers.engine.scheduler import Scheduler
from handlers.engine.sequence import Sequence
from tests.engine.draft_runners import ScriptedDraft, draft_model
from tests.engine.fake_session import EOS, VOCAB, FakeSession, greedy, scripted_logits
from tests.engine.test_constraint import bits

CONTEXT = 48
DOCUMENT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 1, 4, 1, 5, 2, 7]
VALIDATOR = RequestValidator(VOCAB, frozenset([EOS]), CONTEXT)


class CopyingSession(FakeSession):
    """Likes to go on as its ids have gone on before: where it is not faithful, mostly."""

    def __init__(self, slots: int = 4, *, faithful: bool = False) -> None:
        super().__init__(slots, CONTEXT)
        self._faithful = faithful

    def logits(self, ids: Items[int]) -> NDArray[np.float32]:
        logits = scripted_logits(ids)
        if self._faithful or logits[1] > -3:  # five times in six
            for token_id in propose(np.array(ids))[:1]:
                logits[token_id] += 30
        return logits


def seconds(seed: int) -> Callable[[], float]:
    """A clock by which every call takes a random time."""
    generator = random.Random(seed)
    times = itertools.accumulate(iter(generator.random, 2.0))
    return lambda: next(times)


def scheduler(session: FakeSession, **changes: Any) -> Scheduler:
    """By its clock all calls take the same time, whatever their width."""
    options: dict[str, Any] = {"slots": 4, "prefill_chunk": 8, "prompt_lookup": True}
    options["clock"] = itertools.count().__next__
    return Scheduler(session, context_length=CONTEXT, **options | changes)


@dataclass
class Interrupts:
    """Leaves every id free, but forces some after each id that is in its table."""

    table: dict[int, list[int]]
    due: list[int] = field(default_factory=list)
    ends_answer: bool = False
    complete: bool = False

    def allowed(self) -> NDArray[np.uint32] | None:
        return bits(self.due[:1]) if self.due else None

    def accept(self, token_id: int) -> None:
        if self.due:
            assert self.due.pop(0) == token_id
        else:
            self.due = [*self.table.get(token_id, [])]

    def valid_prefix(self, draft: Items[int]) -> int:
        return 0 if self.due else len(draft)

    def forced(self) -> list[int]:
        return [*self.due]


def made(
    prompt: Items[int], params: SamplingParams, interrupts: dict[int, list[int]] | None = None
) -> Sequence:
    constraint = None if interrupts is None else Interrupts(interrupts)
    return VALIDATOR.sequence(Prompt(prompt, params, constraint), 0, 0.0, None)


def alone(
    prompt: Items[int],
    params: SamplingParams,
    session: FakeSession | None = None,
    interrupts: dict[int, list[int]] | None = None,
) -> list[Step]:
    """The steps of a sequence that has the engine to itself, one id a call."""
    subject = scheduler(session or CopyingSession(1), slots=1, prompt_lookup=False)
    subject.add(made(prompt, params, interrupts))
    steps: list[Step] = []
    while subject.running or not steps:
        steps += [step for _, step in subject.step(now=0.0)]
    return steps


@dataclass
class Run:
    """Requests that were answered together, with drafts."""

    session: CopyingSession
    requests: list[tuple[Sequence, list[Step]]] = field(default_factory=list)
    interrupts: dict[int, list[int]] | None = None
    """What all of them have forced, None for no constraint."""


PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 40),
    min_tokens=st.integers(0, 20),
    temperature=st.sampled_from([0.0, 0.0, 0.7, 2.0]),
    top_p=st.sampled_from([1.0, 0.9]),
    top_k=st.sampled_from([0, 5]),
    seed=st.integers(0, 9),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.2]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.5]),
    presence_penalty=st.sampled_from([0.0, 0.0, 0.5]),
    ignore_eos=st.booleans(),
    stop_token_ids=st.sampled_from([frozenset(), frozenset([9, 7])]),
    logit_bias=st.sampled_from([{}, {4: 2.0, 9: -100.0}]),
    logprobs=st.sampled_from([None, None, 2]),
    prompt_logprobs=st.sampled_from([None, None, None, 1]),
)
PROMPTS = st.builds(
    lambda length, end: DOCUMENT[:length] + end,
    st.integers(0, len(DOCUMENT)),
    st.lists(st.integers(1, 9), min_size=1, max_size=20),
)


INTERRUPTS = st.none() | st.dictionaries(
    st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=3), max_size=3
)


@st.composite
def drafts(draw: st.DrawFn, session: FakeSession, slots: int) -> DraftModel | None:
    """None, a sibling of the model, or its own layers; right always, mostly, or never."""
    kind = draw(st.sampled_from([None, "sibling", "layers"]))
    if kind is None:
        return None
    shares = kind == "layers"
    capacity = CONTEXT if shares else draw(st.sampled_from([CONTEXT, CONTEXT, 20]))
    acceptance = draw(st.sampled_from([0.0, 0.5, 0.8, 1.0]))
    runner = ScriptedDraft(session, acceptance, capacity=capacity, shares_cache=shares)
    chunk = draw(st.sampled_from([1, 5, 48]))
    return draft_model(runner, slots, shares_cache=shares, prefill_chunk=chunk)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    """Any interleaving of requests, cancellations and steps, whatever calls seem to cost."""
    slots = draw(st.integers(1, 4))
    run = Run(CopyingSession(slots), interrupts=draw(INTERRUPTS))
    clock = seconds(draw(st.integers(0, 99)))
    chunk = draw(st.sampled_from([1, 5, 48]))
    options = {"prompt_lookup": draw(st.booleans()), "draft": draw(drafts(run.session, slots))}
    subject = scheduler(run.session, slots=slots, prefill_chunk=chunk, clock=clock, **options)
    events = []
    for _ in range(draw(st.integers(1, 20))):
        action = draw(st.sampled_from(["submit", "cancel", "step", "step", "step"]))
        if action == "submit":
            run.requests.append((made(draw(PROMPTS), draw(PARAMS), run.interrupts), []))
            subject.add(run.requests[-1][0])
        elif action == "cancel" and run.requests:
            draw(st.sampled_from(run.requests))[0].cancelled = True
        else:
            events += subject.step(now=0.0)
    while subject.running or subject._waiting:
        events += subject.step(now=0.0)
    for member, steps in run.requests:
        steps += [step for who, step in events if who is member]
    return run


@given(runs())
def test_drafts_change_no_step_of_any_answer(run: Run) -> None:
    for member, steps in run.requests:
        expected = alone(member.prompt.tolist(), member.params, interrupts=run.interrupts)
        if steps[-1].finish_reason is FinishReason.CANCELLED:
            assert steps[:-1] == expected[: len(steps) - 1]
        else:
            assert steps == expected


COPIED = DOCUMENT[:18]
"""Its last three ids are its first three."""
PROMPT_CALLS = 3
"""Of DOCUMENT and of COPIED, by 8."""


def answer(
    subject: Scheduler, prompt: Items[int], params: SamplingParams
) -> tuple[Sequence, list[Step]]:
    member = made(prompt, params)
    subject.add(member)
    steps = [step for _, step in subject.step(now=0.0)]
    while subject.running:
        steps += [step for _, step in subject.step(now=0.0)]
    return member, steps


def test_an_answer_that_copies_takes_few_calls_of_which_some_give_eight_ids() -> None:
    session = CopyingSession(faithful=True)
    _, steps = answer(scheduler(session), COPIED, greedy(26, ignore_eos=True))
    decoded = session.batches[PROMPT_CALLS:]
    assert len(steps) == 26
    assert max(batch.columns for batch in decoded) == 1 + MAX_DRAFT_TOKENS
    assert len(decoded) == 8, [b.columns for b in decoded]


def test_with_lookup_off_every_decode_call_is_a_column_wide() -> None:
    session = CopyingSession()
    answer(scheduler(session, prompt_lookup=False), DOCUMENT, greedy(26, ignore_eos=True))
    assert {batch.columns for batch in session.batches[PROMPT_CALLS:]} == {1}


def test_of_drafts_those_that_came_true_are_remembered_and_no_wrong_ones() -> None:
    session = CopyingSession(1)
    subject = scheduler(session, slots=1)
    answer(subject, [11, 12, 13], greedy(9, ignore_eos=True))  # what a call takes is known now
    begun = len(session.batches)
    first, _ = answer(subject, COPIED, greedy(20, ignore_eos=True))
    assert session.batches[begun + PROMPT_CALLS].columns > 1
    decoded = session.batches[begun + PROMPT_CALLS :]
    assert sum(int(batch.query_seqlens.sum()) for batch in decoded) > len(first.tokens) - 1
    talk = [*COPIED, *first.tokens, 8]
    second, steps = answer(subject, talk, greedy(4, ignore_eos=True))
    assert second.cached_tokens == len(talk) - 2  # the last id was chosen, and not computed
    assert steps == alone(talk, greedy(4, ignore_eos=True))


class BreaksAtTheThird(CopyingSession):
    """In wide calls the logits after the second drafted id are no numbers."""

    def step(self, batch: Batch) -> NDArray[np.float32]:
        logits = super().step(batch)
        if len(logits) > 2:
            logits[2:] = np.nan
        return logits


def test_ids_before_logits_that_are_no_numbers_are_delivered() -> None:
    params = greedy(26, ignore_eos=True)
    member, steps = answer(scheduler(BreaksAtTheThird()), DOCUMENT, params)
    assert steps[-1].finish_reason is FinishReason.FAULT
    assert steps[:-1] == alone(DOCUMENT, params)[: len(steps) - 1]
    assert len(steps) - 1 == len(member.tokens)


class EndsAmidARun(CopyingSession):
    """Repeats an id, and ends at the place where another is drafted."""

    def logits(self, ids: Items[int]) -> NDArray[np.float32]:
        logits = super().logits(ids)
        logits[EOS] = 99 if len(ids) == 25 else -99
        return logits


def test_an_answer_ends_where_its_end_is_chosen_though_another_id_was_drafted() -> None:
    session = EndsAmidARun(faithful=True)
    _, steps = answer(scheduler(session), [7] * 9, greedy(40))
    assert session.batches[-1].columns > 1
    assert steps == alone([7] * 9, greedy(40), EndsAmidARun(1, faithful=True))


def test_a_draft_ends_where_ids_are_forced_that_end_as_it_would_have_gone_on() -> None:
    interrupts = {5: [9, 5]}
    session = CopyingSession(faithful=True)
    subject = scheduler(session)
    answer(subject, COPIED, greedy(26, ignore_eos=True))  # what a call takes is known now
    begun = len(session.batches)
    member = made(COPIED, greedy(26, ignore_eos=True), interrupts)
    subject.add(member)
    steps = [step for _, step in subject.step(now=0.0)]
    while subject.running:
        steps += [step for _, step in subject.step(now=0.0)]
    expected = alone(COPIED, member.params, CopyingSession(1, faithful=True), interrupts)
    assert steps == expected
    assert max(batch.columns for batch in session.batches[begun + 1 :]) == 1 + MAX_DRAFT_TOKENS


def test_ids_that_a_grammar_forces_spare_no_call_though_they_were_drafted() -> None:
    interrupts = {2: [6], 7: [9]}  # as it goes on anyway
    params = greedy(26, ignore_eos=True)
    calls, accepted = [], []
    for lookup in (False, True):
        session = CopyingSession(faithful=True)
        subject = scheduler(session, prompt_lookup=lookup)
        answer(subject, COPIED, params)  # what a call takes is known now
        begun = len(session.batches)
        member = made(COPIED, params, interrupts)
        subject.add(member)
        subject.step(now=0.0)
        while subject.running:
            subject.step(now=0.0)
        assert len(member.tokens) == 26
        calls.append(len(session.batches) - begun)
        accepted.append(member.accepted_tokens)
    assert accepted[1] > 5
    assert accepted == [0, calls[0] - calls[1]]
