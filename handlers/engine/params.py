"""The engine's plain data: what a request asks for, and what it gets step by step.

Imports no numpy: the API makes a Prompt before numpy is needed.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_DRAFT_TOKENS = 7
"""Guessed ids that a decode call computes after a sequence's newest one, at most."""


class FinishReason(enum.Enum):
    """Why a sequence ended."""

    EOS = "eos"
    """The model chose an id that ends an answer."""
    GRAMMAR = "grammar"
    """The grammar allows nothing more."""
    LENGTH = "length"
    """max_tokens reached."""
    CONTEXT = "context"
    """The slot is full."""
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    FAULT = "fault"
    """The step that it was part of failed, or its grammar did: Generation.fault says which."""


class SamplingParams(msgspec.Struct, frozen=True):
    """Says how the next id is chosen, and when to stop. Ranges are checked by the API.

    A temperature of 0 is greedy: the other filters and the seed then have no effect,
    the penalties still do.
    """

    max_tokens: int
    """0 computes the prompt and ends: for its logprobs."""
    min_tokens: int = 0
    """No id that ends the answer is chosen before this many ids, unless a grammar wants it."""
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 keeps all."""
    min_p: float = 0.0
    seed: int | None = None
    """None draws fresh entropy."""
    repetition_penalty: float = 1.0
    """Over prompt and answer; 1 does nothing. CTRL, https://arxiv.org/abs/1909.05858."""
    frequency_penalty: float = 0.0
    """Over the answer, for each occurrence, as OpenAI defines it."""
    presence_penalty: float = 0.0
    """Over the answer, once, as OpenAI defines it."""
    ignore_eos: bool = False
    """Without effect on a sequence with a grammar, which says itself when it ends."""
    stop_token_ids: frozenset[int] = frozenset()
    """Ids that end the answer as the model's own eos ids do."""
    logit_bias: Mapping[int, float] = msgspec.field(default_factory=dict)
    """Added to the logits of these ids, before penalties and temperature."""
    logprobs: int | None = None
    """The number of likeliest ids to return at each place, beside the chosen one."""
    prompt_logprobs: int | None = None
    """The same for the prompt. Such a prompt is computed whole, also where the cache holds it."""


class Logprobs(msgspec.Struct, frozen=True):
    """The log probability of one id and of the likeliest ids at its place.

    Natural logarithms of the softmax over the whole vocabulary: before bias, grammar, penalties
    and temperature.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    """(id, logprob), the likeliest first; as many as the parameters say."""


class Step(msgspec.Struct, frozen=True):
    """One id of an answer, or its end.

    A step with `finish_reason` is a sequence's last. Its `token_id` is None unless the
    sequence ended by length, context or grammar with this very id (an eos id is never
    delivered: it is not text).
    """

    token_id: int | None
    finish_reason: FinishReason | None = None
    index: int = 0
    """Which prompt of the submission it belongs to."""
    logprobs: Logprobs | None = None
    """The logprobs of `token_id`, where SamplingParams.logprobs asks for them."""
    prompt_logprobs: tuple[Logprobs | None, ...] | None = None
    """Those of the prompt's ids, on a sequence's first step alone. The first id has none."""


class GenerationStats(msgspec.Struct, frozen=True):
    """The tokens and milliseconds that one sequence has taken so far."""

    prompt_tokens: int
    cached_tokens: int
    """Prompt tokens that were not computed, because a slot held their keys and values."""
    completion_tokens: int
    queue_ms: float
    """From submission to the step that first computed something of it."""
    prefill_ms: float
    """From there to its first id."""
    decode_ms: float
    """From there to its latest id."""
    reasoning_tokens: int = 0
    """Completion tokens that are thoughts, filled in by the reader of the text."""
    drafted_tokens: int = 0
    """Ids that were guessed and computed, by prompt lookup or by a draft model."""
    accepted_tokens: int = 0
    """Those of them that came true, each of which spared a call."""


class Constraint(Protocol):
    """A grammar at the place that the ids accepted so far have led to: which ids may come next.

    It belongs to one sequence and is called by the thread that steps the engine alone. A method
    that raises GrammarTooComplex or EngineFault ends its sequence, and no other.
    """

    @property
    def ends_answer(self) -> bool:
        """Returns whether it says itself when the answer ends."""

    def allowed(self) -> NDArray[np.uint32] | None:
        """Returns bits [ceil(vocab / 32)]: bit i % 32 of word i // 32 is 1 if id i may come next.

        Ids that end an answer are among them where it may end. None where any id may come.
        """

    def accept(self, token_id: int) -> None:
        """Advances by one id, which has to be an allowed one."""

    def valid_prefix(self, draft: Items[int]) -> int:
        """Returns how many of these ids, from the first on, may come next in turn, as far as known.

        For drafts, of which others would never come true. It accepts none of them.
        """

    def forced(self) -> list[int]:
        """Returns the ids that must follow now, in order; often none. It does not accept them."""

    @property
    def complete(self) -> bool:
        """Returns whether nothing but the end may follow."""


class Prompt(msgspec.Struct, frozen=True):
    """A prompt to be answered, with its sampling parameters and its grammar."""

    ids: Items[int]
    params: SamplingParams
    constraint: Constraint | None = None
    """The grammar that the answer follows. Each prompt has one of its own."""
