"""The scheduler's laws, over a session whose ids are known."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from handlers.engine.batch import Batch, ModelRunner
from handlers.engine.params import FinishReason, SamplingParams
from handlers.engine.sampling import Sampler
from handlers.engine.scheduler import Event, Scheduler
from handlers.engine.sequence import Sequence
from handlers.errors import EngineFault
from tests.engine.fake_session import CONTEXT, NAN, POISON, FakeSession, greedy_answer, sequence

DOCUMENT = [(7 * n) % 49 + 1 for n in range(60)]
BEGINNINGS = st.integers(0, 60).map(lambda length: DOCUMENT[:length])
"""Prompts that share them reuse each other's caches."""
PROMPTS = st.builds(
    lambda beginning, end: beginning + end,
    BEGINNINGS,
    st.lists(st.integers(1, 50), min_size=1, max_size=30),
)


def scheduler(session: ModelRunner | None = None, slots: int = 4, chunk: int = 8) -> Scheduler:
    return Scheduler(
        session or FakeSession(slots),
        slots=slots,
        context_length=CONTEXT,
        prefill_chunk=chunk,
        prompt_lookup=True,
    )


def idle(subject: Scheduler) -> bool:
    return not subject.running and not subject._waiting


def run(subject: Scheduler) -> list[Event]:
    events = []
    while not idle(subject):
        events += subject.step(now=0.0)
    return events


def reasons(events: list[Event]) -> dict[Sequence, FinishReason]:
    return {who: step.finish_reason for who, step in events if step.finish_reason}


@dataclass
class History:
    """The history of a scheduler under a random program, and what came of it."""

    submitted: list[Sequence] = field(default_factory=list)
    cancelled: set[int] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Any interleaving of submissions, cancellations and steps, run to its end."""
    slots = draw(st.integers(1, 4))
    subject = scheduler(slots=slots, chunk=draw(st.integers(1, 48)))
    history = History()
    for _ in range(draw(st.integers(1, 25))):
        action = draw(st.sampled_from(["submit", "break", "cancel", "step", "step", "step"]))
        if action == "submit":
            history.submitted.append(sequence(draw(PROMPTS), draw(st.integers(1, 12))))
            subject.add(history.submitted[-1])
        elif action == "break":  # its end fails, or has no logits that are numbers
            end = draw(st.sampled_from([[POISON, 1], [NAN, 1]]))
            subject.add(sequence(draw(BEGINNINGS) + end))
        elif action == "cancel" and history.submitted:
            victim = draw(st.integers(0, len(history.submitted) - 1))
            history.submitted[victim].cancelled = True
            history.cancelled.add(victim)
        else:
            history.events += subject.step(now=0.0)
        held = [member.held_slot for member in subject.running]
        assert held == sorted(set(held)), "two sequences share a slot"
    history.events += run(subject)
    assert subject.running == []
    return history


@given(histories())
def test_any_interleaving_gives_each_sequence_the_ids_that_it_has_alone(history: History) -> None:
    for number, member in enumerate(history.submitted):
        alone = greedy_answer(member.prompt.tolist(), member.params.max_tokens)
        if number in history.cancelled:
            assert member.tokens == alone[: len(member.tokens)]
        else:
            assert member.tokens == alone


@given(histories())
def test_every_sequence_ends_exactly_once_and_with_its_last_event(history: History) -> None:
    for member in history.submitted:
        steps = [step for who, step in history.events if who is member]
        assert [step.finish_reason is not None for step in steps] == [False] * (len(steps) - 1) + [
            True
        ]
        assert [s.token_id for s in steps if s.token_id is not None] == member.tokens


def test_a_running_answer_grows_by_a_token_between_any_two_chunks_of_another_prompt() -> None:
    session = FakeSession()
    subject = scheduler(session, chunk=4)
    subject.add(sequence([9, 9], max_tokens=40))
    subject.step(now=0.0)
    subject.add(sequence(list(range(1, 33))))
    widths = []
    for _ in range(8):
        before = len(session.batches)
        subject.step(now=0.0)
        widths.append([batch.input_ids.shape for batch in session.batches[before:]])
    assert widths == [[(1, 1), (1, 4)]] * 8


def test_a_short_prompt_overtakes_a_long_one_and_the_long_one_still_gets_every_second_chunk() -> (
    None
):
    subject = scheduler(chunk=4)
    long, short = sequence(list(range(1, 41))), sequence([1, 2, 3, 4, 5, 6])
    subject.add(long)
    subject.add(short)
    steps = 0
    while not short.tokens:
        subject.step(now=0.0)
        steps += 1
    assert steps <= 4  # two chunks of its own, each after at most one of the other's
    assert long.num_computed_tokens >= 4


def test_a_long_prompt_is_not_held_up_for_ever_by_short_ones() -> None:
    subject = scheduler(slots=2, chunk=4)
    long = sequence(list(range(1, 41)))
    subject.add(long)
    for steps in range(25):
        subject.add(sequence([1 + steps, 2, 3], max_tokens=1))
        subject.step(now=0.0)
    assert long.tokens  # 10 chunks, every second one at the latest


def test_slots_are_given_in_the_order_of_submission() -> None:
    subject = scheduler(slots=2)
    members = [sequence([n], max_tokens=3) for n in range(1, 6)]
    for member in members:
        subject.add(member)
    ended = list(reasons(run(subject)))
    assert {*ended[:2]} == {*members[:2]}
    assert ended[-1] is members[-1]


def test_a_batch_starts_at_the_first_busy_slot_and_a_newcomer_takes_one_beside_it() -> None:
    session = FakeSession()
    subject = scheduler(session)
    members = [sequence([n, n], max_tokens=30) for n in (1, 2, 3)]
    for member in members:
        subject.add(member)
    for _ in range(4):
        subject.step(now=0.0)
    members[0].cancelled = members[1].cancelled = True
    subject.step(now=0.0)
    assert (session.batches[-1].first_slot, session.batches[-1].rows) == (2, 1)
    newcomer = sequence([9])
    subject.add(newcomer)
    subject.step(now=0.0)
    assert newcomer.slot == 3


def test_a_deadline_ends_a_running_and_a_waiting_sequence_with_what_they_have() -> None:
    subject = scheduler(slots=1)
    running = sequence([5, 4], max_tokens=50, deadline=10.0)
    waiting = sequence([6, 4], deadline=10.0)
    subject.add(running)
    subject.add(waiting)
    for _ in range(4):
        assert subject.step(now=9.9)
    ended = reasons(subject.step(now=10.0))
    assert ended == {running: FinishReason.DEADLINE, waiting: FinishReason.DEADLINE}
    assert running.tokens == greedy_answer([5, 4], 4)
    assert idle(subject)


def test_a_cancelled_sequence_leaves_at_the_next_step_and_its_slot_goes_on() -> None:
    subject = scheduler(slots=1)
    first, second = sequence([7, 4], max_tokens=50), sequence([8, 4])
    subject.add(first)
    subject.add(second)
    subject.step(now=0.0)
    first.cancelled = True
    events = subject.step(now=0.0)
    assert events[0] == (first, events[0][1])
    assert events[0][1].finish_reason is FinishReason.CANCELLED
    run(subject)
    assert second.tokens == greedy_answer([8, 4], 10)


def test_a_fault_in_a_prompt_ends_that_sequence_alone() -> None:
    subject = scheduler()
    healthy, poisoned = sequence([1, 2, 3]), sequence([4, POISON])
    subject.add(healthy)
    subject.add(poisoned)
    ended = reasons(run(subject))
    assert ended[poisoned] is FinishReason.FAULT
    assert "poisoned" in str(poisoned.fault)
    assert healthy.tokens == greedy_answer([1, 2, 3], 10)


def test_logits_that_are_no_numbers_end_that_sequence_alone() -> None:
    subject = scheduler()
    healthy, broken = sequence([1, 2, 3]), sequence([4, NAN])
    subject.add(healthy)
    subject.add(broken)
    ended = reasons(run(subject))
    assert ended[broken] is FinishReason.FAULT
    assert "nan" in str(broken.fault)
    assert healthy.tokens == greedy_answer([1, 2, 3], 10)


class BreaksOnce(FakeSession):
    """Fails at the first call with as many rows as `rows`, one column wide."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._rows = rows

    def step(self, batch: Batch) -> NDArray[np.float32]:
        if batch.input_ids.shape == (self._rows, 1):
            self._rows = -1
            raise EngineFault("The call broke.")
        return super().step(batch)


def test_a_fault_while_decoding_ends_the_sequences_of_that_call_and_the_engine_goes_on() -> None:
    subject = scheduler(BreaksOnce(rows=2), chunk=4)
    decoding = [sequence([n, 3], max_tokens=60) for n in (1, 2)]
    reading = sequence(list(range(1, 30)))
    for member in (*decoding, reading):
        subject.add(member)
    ended = reasons(run(subject))
    assert [ended[member] for member in decoding] == [FinishReason.FAULT] * 2
    assert reading.tokens == greedy_answer(list(range(1, 30)), 10)
    late = sequence([5, 5])
    subject.add(late)
    run(subject)
    assert late.tokens == greedy_answer([5, 5], 10)


def test_sampled_ids_do_not_depend_on_who_else_runs() -> None:
    def sampled(seed: int) -> Sequence:
        member = sequence([3, 1, 4], max_tokens=12)
        params = SamplingParams(12, temperature=1.3, top_p=0.9, seed=seed)
        member.sampler = Sampler(params, member.prompt, member.eos_token_ids)
        return member

    alone = sampled(seed=7)
    subject = scheduler()
    subject.add(alone)
    run(subject)
    together = [sampled(seed) for seed in (5, 6, 7, 8, 9)]
    for member in together:
        subject.add(member)
    run(subject)
    assert together[2].tokens == alone.tokens
    assert len({tuple(member.tokens) for member in together}) > 1
