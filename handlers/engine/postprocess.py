"""Turns the logits of a call into a sequence's next steps.

    logits ──> prompt ids and forced ids are scored
           └─> an id is chosen ──> the grammar goes on ──> ids that it forces

A forced id is not chosen, so it waits for no logits: it joins the answer at once, is delivered at
once, and its keys and values are computed with those of its neighbours in one call. Only where
its logprobs are wanted does its step wait for that call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from handlers.engine.params import FinishReason, Logprobs, Step
from handlers.engine.sampling import compute_logprobs
from handlers.engine.sequence import Sequence, check_stop

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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
