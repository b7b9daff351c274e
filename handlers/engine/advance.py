"""From a call's logits to a sequence's next steps: an id is chosen, and what follows from it.

    logits ──> prompt ids and forced ids are scored
           └─> an id is chosen ──> the grammar goes on ──> ids that it forces

A forced id is not chosen, so it waits for no logits: it joins the answer at once, is delivered at
once, and its keys and values are computed with those of its neighbours in one call. Only where
its logprobs are wanted does its step wait for that call.

Knows one sequence. Called by the scheduler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from handlers.engine.logprobs import score
from handlers.engine.params import FinishReason, Logprobs, Step
from handlers.engine.sequence import Sequence
from handlers.engine.stopping import ended

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def advance(sequence: Sequence, position: int, logits: NDArray[np.float32]) -> list[Step]:
    """The steps that follow from the logits [N, vocab] at `position` and the N - 1 after it.

    The logits are overwritten. Raises EngineFault when no id can be chosen, and what a grammar
    raises.
    """
    steps = []
    for place, row in enumerate(logits, start=position + 1):
        if place < len(sequence.prompt):
            _score_prompt(sequence, place, row)
        elif place < sequence.length:
            steps.append(_forced_step(sequence, place, row))
        elif sequence.ending is None:
            steps += _choose(sequence, row)
    first = position < len(sequence.prompt)
    if steps and first and sequence.params.prompt_logprobs is not None:
        steps[0] = replace(steps[0], prompt_logprobs=tuple(sequence.prompt_logprobs))
    return steps


def _score_prompt(sequence: Sequence, place: int, logits: NDArray[np.float32]) -> None:
    count = sequence.params.prompt_logprobs or 0
    sequence.prompt_logprobs.append(score(logits, int(sequence.prompt[place]), count))


def _forced_step(sequence: Sequence, place: int, logits: NDArray[np.float32]) -> Step:
    """The step of a forced id that waited for its logprobs."""
    token_id = sequence.tokens[place - len(sequence.prompt)]
    reason = sequence.ending if place == sequence.length - 1 else None
    logprobs = score(logits, token_id, sequence.params.logprobs or 0)
    return Step(token_id, reason, sequence.index, logprobs)


def _choose(sequence: Sequence, logits: NDArray[np.float32]) -> list[Step]:
    params, constraint = sequence.params, sequence.constraint
    if params.max_tokens == 0:
        return [Step(None, FinishReason.LENGTH, sequence.index)]
    raw = None if params.logprobs is None else logits.copy()
    allowed = None if constraint is None else constraint.allowed()
    token_id = sequence.sampler.sample(logits, allowed)
    reason = _take(sequence, token_id)
    if reason is FinishReason.EOS:
        return [Step(None, reason, sequence.index)]
    logprobs: Logprobs | None = None
    if raw is not None:
        logprobs = score(raw, token_id, params.logprobs or 0)
    step = Step(token_id, reason, sequence.index, logprobs)
    return [step] if reason else [step, *_force(sequence)]


def _force(sequence: Sequence) -> list[Step]:
    """The steps of the ids that the grammar forces now."""
    if sequence.constraint is None:
        return []
    steps = []
    for token_id in sequence.constraint.forced():
        if token_id in sequence.eos_token_ids:
            break  # the model says the end itself: nothing else is allowed
        sequence.ending = _take(sequence, token_id)
        sequence.sampler.accept(token_id)
        steps.append(Step(token_id, sequence.ending, sequence.index))
        if sequence.ending is not None:
            break
    return [] if sequence.params.logprobs is not None else steps


def _take(sequence: Sequence, token_id: int) -> FinishReason | None:
    """Adds an id to the answer, unless it is one that ends it. Whether the answer ends."""
    if sequence.constraint is not None and token_id not in sequence.eos_token_ids:
        sequence.constraint.accept(token_id)
    reason = ended(sequence, token_id)
    if reason is not FinishReason.EOS:
        sequence.tokens.append(token_id)
    return reason
