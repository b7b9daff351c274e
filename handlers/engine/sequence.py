"""One sequence in the engine: its state, how logits make it grow, and what ends it.

    logits ──> prompt ids and forced ids are scored
           └─> an id is chosen ──> the grammar goes on ──> ids that it forces

A forced id is not chosen, so it waits for no logits: it joins the answer at once, is delivered at
once, and its keys and values are computed with those of its neighbours in one call. Only where
its logprobs are wanted does its step wait for that call.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from handlers.engine.ngram_proposer import NgramProposer
from handlers.engine.params import (
    MAX_DRAFT_TOKENS,
    Constraint,
    FinishReason,
    GenerationStats,
    Logprobs,
    SamplingParams,
    Step,
)
from handlers.engine.sampling import Sampler, compute_logprobs
from handlers.errors import ends_a_task

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

    import numpy as np
    from numpy.typing import NDArray

    from handlers.errors import RequestError


class Sequence(msgspec.Struct, eq=False):
    """One request in the engine: its prompt, its parameters, its answer so far.

    Only the thread that steps the engine changes it, except for `cancelled`, which any
    thread may set.
    """

    prompt: NDArray[np.int64]
    """[prompt tokens], at least one."""
    params: SamplingParams
    sampler: Sampler
    eos_token_ids: frozenset[int]
    """Ids that end this answer."""
    max_new_tokens_by_context: int
    """Context length less prompt."""
    deadline: float = math.inf
    """`time.monotonic()` seconds, as all moments below."""
    index: int = 0
    """The place of its prompt in the submission."""
    constraint: Constraint | None = None
    submitted: float = 0.0

    tokens: list[int] = msgspec.field(default_factory=list)
    """The answer so far."""
    num_computed_tokens: int = 0
    """Tokens whose keys and values are in the slot's cache."""
    slot: int | None = None
    """None while it waits for one, and again when it has ended."""
    arrival: int = -1
    """Its number in the order in which the scheduler was given its sequences."""
    cancelled: bool = False
    pending_finish_reason: FinishReason | None = None
    """Why `tokens` is complete, though the logprobs of its last ids are still to be computed."""
    proposer: NgramProposer | None = None
    """Drafts by prompt lookup, once it has decoded."""
    guess_rate: float | None = None
    """How likely a guess of the draft model is to come true, once it has been known to guess."""
    drafted_tokens: int = 0
    """Drafted ids that calls have computed."""
    accepted_tokens: int = 0
    """Those of them that came true."""
    prompt_logprobs: list[Logprobs | None] = msgspec.field(default_factory=lambda: [None])
    """Those computed so far; the first id has none."""
    cached_tokens: int = 0
    """Prompt tokens taken from the cache."""
    started: float | None = None
    """When something of it was first computed."""
    first_step: float | None = None
    latest_step: float | None = None
    delivered: int = 0
    """Ids handed to the request's handle."""
    fault: RequestError | None = None
    """Why it ended, where it ended by FinishReason.FAULT: a bug, or a grammar of the request."""

    @property
    def held_slot(self) -> int:
        """The slot of a running sequence."""
        if self.slot is None:
            raise RuntimeError("A sequence without a slot was taken for one that runs.")
        return self.slot

    @property
    def num_tokens(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt) + len(self.tokens)

    @property
    def num_uncomputed_tokens(self) -> int:
        """Tokens that are not in the cache yet: 1 once it decodes, unless a grammar forces ids."""
        return self.num_tokens - self.num_computed_tokens

    @property
    def max_new_tokens(self) -> int:
        """Tokens that the answer can have."""
        return min(self.max_new_tokens_by_context, self.params.max_tokens)

    def last_token(self) -> int:
        """Returns the last id of prompt and answer."""
        return self.tokens[-1] if self.tokens else int(self.prompt[-1])

    def scored_positions(self, stop: int) -> range:
        """Returns the positions from `num_computed_tokens` to `stop` whose logits are needed.

        Those before an id that is to be chosen, or whose logprobs are wanted.
        """
        first = stop - 1 if stop == self.num_tokens else stop
        if self.params.logprobs is not None:
            first = min(first, len(self.prompt) - 1)
        if self.params.prompt_logprobs is not None and self.num_computed_tokens < len(self.prompt):
            first = 0
        return range(max(first, self.num_computed_tokens), stop)

    @property
    def most_drafted(self) -> int:
        """Ids that are worth drafting: a call gives one more than those that come true."""
        return max(0, min(MAX_DRAFT_TOKENS, self.max_new_tokens - len(self.tokens) - 1))

    def lookup(self) -> tuple[list[int], float]:
        """Returns ids that may come next by prompt lookup, and their rate.

        None without memory: it can do without.
        """
        try:
            if self.proposer is None:
                self.proposer = NgramProposer(self.prompt, self.max_new_tokens)
            self.proposer.update(self.tokens)
        except MemoryError:
            return [], 0.0
        draft = self.proposer.draft[: self.most_drafted]
        return draft[: self.usable(draft)], self.proposer.hit_rate

    def usable(self, draft: Items[int]) -> int:
        """Returns how many drafted ids, from the first on, may be worth computing.

        Those before one that ends the answer, after which nothing comes, or that the grammar
        refuses.
        """
        count = next((i for i, each in enumerate(draft) if each in self.eos_token_ids), len(draft))
        if self.constraint is None or not count:
            return count
        try:
            return self.constraint.valid_prefix(draft[:count])
        except BaseException as error:  # a panic of llguidance's is no Exception
            if ends_a_task(error):
                raise
            return 0  # the grammar says so itself where an id is chosen

    def record_delivery(self, step: Step, now: float) -> None:
        """Counts and times a step that is handed to the request's handle."""
        self.first_step = self.first_step or now
        self.latest_step = now
        self.delivered += step.token_id is not None

    def stats(self) -> GenerationStats:
        """Returns what it has taken, up to its latest step."""
        latest = self.latest_step or self.submitted
        started = self.started or latest
        first = self.first_step or started
        return GenerationStats(
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached_tokens,
            completion_tokens=self.delivered,
            queue_ms=(started - self.submitted) * 1000,
            prefill_ms=(first - started) * 1000,
            decode_ms=(latest - first) * 1000,
            drafted_tokens=self.drafted_tokens,
            accepted_tokens=self.accepted_tokens,
        )


def postprocess(sequence: Sequence, position: int, logits: NDArray[np.float32]) -> list[Step]:
    """Returns the steps that follow from logits [N, vocab] at `position` and the N - 1 after it.

    The logits are overwritten. Raises EngineFault when no id can be chosen, and what a grammar
    raises.
    """
    steps = []
    for place, row in enumerate(logits, start=position + 1):
        if place < len(sequence.prompt):
            _score_prompt(sequence, place, row)
        elif place < sequence.num_tokens:
            steps.append(_forced_step(sequence, place, row))
        elif sequence.pending_finish_reason is None:
            steps += _choose(sequence, row)
    first = position < len(sequence.prompt)
    if steps and first and sequence.params.prompt_logprobs is not None:
        steps[0] = replace(steps[0], prompt_logprobs=tuple(sequence.prompt_logprobs))
    return steps


def _score_prompt(sequence: Sequence, place: int, logits: NDArray[np.float32]) -> None:
    count = sequence.params.prompt_logprobs or 0
    sequence.prompt_logprobs.append(compute_logprobs(logits, int(sequence.prompt[place]), count))


def _forced_step(sequence: Sequence, place: int, logits: NDArray[np.float32]) -> Step:
    """Makes the step of a forced id that waited for its logprobs."""
    token_id = sequence.tokens[place - len(sequence.prompt)]
    reason = sequence.pending_finish_reason if place == sequence.num_tokens - 1 else None
    logprobs = compute_logprobs(logits, token_id, sequence.params.logprobs or 0)
    return Step(token_id, reason, sequence.index, logprobs)


def _choose(sequence: Sequence, logits: NDArray[np.float32]) -> list[Step]:
    params, constraint = sequence.params, sequence.constraint
    if params.max_tokens == 0:
        return [Step(None, FinishReason.LENGTH, sequence.index)]
    raw = None if params.logprobs is None else logits.copy()
    allowed = None if constraint is None else constraint.allowed()
    token_id = sequence.sampler.sample(logits, allowed)
    reason = _append(sequence, token_id)
    if reason is FinishReason.EOS:
        return [Step(None, reason, sequence.index)]
    logprobs: Logprobs | None = None
    if raw is not None:
        logprobs = compute_logprobs(raw, token_id, params.logprobs or 0)
    step = Step(token_id, reason, sequence.index, logprobs)
    return [step] if reason else [step, *_append_forced(sequence)]


def _append_forced(sequence: Sequence) -> list[Step]:
    """Appends the ids that the grammar forces now. Returns their steps."""
    if sequence.constraint is None:
        return []
    steps = []
    for token_id in sequence.constraint.forced():
        if token_id in sequence.eos_token_ids:
            break  # the model says the end itself: nothing else is allowed
        sequence.pending_finish_reason = _append(sequence, token_id)
        sequence.sampler.accept(token_id)
        steps.append(Step(token_id, sequence.pending_finish_reason, sequence.index))
        if sequence.pending_finish_reason is not None:
            break
    return [] if sequence.params.logprobs is not None else steps


def _append(sequence: Sequence, token_id: int) -> FinishReason | None:
    """Appends an id to the answer, unless it is an eos id. Returns why the answer ends, or None."""
    if sequence.constraint is not None and token_id not in sequence.eos_token_ids:
        sequence.constraint.accept(token_id)
    reason = check_stop(sequence, token_id)
    if reason is not FinishReason.EOS:
        sequence.tokens.append(token_id)
    return reason


def check_abort(sequence: Sequence, now: float) -> FinishReason | None:
    """Returns why the sequence must end before the next step. `now` is `time.monotonic()`."""
    if sequence.cancelled:
        return FinishReason.CANCELLED
    if now >= sequence.deadline:
        return FinishReason.DEADLINE
    return None


def check_stop(sequence: Sequence, token_id: int) -> FinishReason | None:
    """Returns why an id, which is not among `sequence.tokens` yet, ends the answer; None if not.

    An eos id is no part of the answer. The last id that grammar, length or context allow is,
    and is delivered together with the end, so that no client waits for a step that adds nothing.
    The grammar has accepted the id. It takes precedence over length: its answer is whole.
    """
    if token_id in sequence.eos_token_ids:
        return FinishReason.EOS
    if sequence.constraint is not None and sequence.constraint.complete:
        return FinishReason.GRAMMAR
    length = len(sequence.tokens) + 1
    if length >= sequence.params.max_tokens:
        return FinishReason.LENGTH
    if length >= sequence.max_new_tokens_by_context:
        return FinishReason.CONTEXT
    return None
