"""Why a sequence ends. Pure questions of one sequence; the scheduler asks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.engine.params import FinishReason

if TYPE_CHECKING:
    from handlers.engine.sequence import Sequence


def interrupted(sequence: Sequence, now: float) -> FinishReason | None:
    """Whether the sequence must leave before the next step. `now` is `time.monotonic()`."""
    if sequence.cancelled:
        return FinishReason.CANCELLED
    if now >= sequence.deadline:
        return FinishReason.DEADLINE
    return None


def ended(sequence: Sequence, token_id: int) -> FinishReason | None:
    """Whether an id, which is not among `sequence.tokens` yet, ends the answer.

    An eos id is no part of the answer. The last id that grammar, length or context allow is,
    and is delivered together with the end, so that no client waits for a step that adds nothing.
    The grammar has accepted the id. It comes before length: its answer is whole.
    """
    if token_id in sequence.eos_token_ids:
        return FinishReason.EOS
    if sequence.constraint is not None and sequence.constraint.complete:
        return FinishReason.GRAMMAR
    length = len(sequence.tokens) + 1
    if length >= sequence.params.max_tokens:
        return FinishReason.LENGTH
    if length >= sequence.room:
        return FinishReason.CONTEXT
    return None
