"""One request inside the engine: its ids, its parameters and its state.

Imports no numpy: the API, which makes SamplingParams, is imported before it is needed.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from handlers.engine.constraint import Constraint
    from handlers.engine.prompt_lookup import PromptLookup
    from handlers.engine.sampler import Sampler
    from handlers.errors import RequestError


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
    """The step that it was part of failed, or its grammar did: Sequence.fault says which."""


class SamplingParams(msgspec.Struct, frozen=True):
    """How the next id is chosen, and when to stop. Ranges are checked by the API.

    A temperature of 0 is greedy: the other filters and the seed then have no effect,
    the penalties still do.
    """

    max_tokens: int
    """0 reads the prompt and ends: for its logprobs."""
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
    """How many of the likeliest ids to tell at each place of the answer, beside the chosen one."""
    prompt_logprobs: int | None = None
    """The same for the prompt. Such a prompt is computed whole, whatever the cache holds."""


class Logprobs(msgspec.Struct, frozen=True):
    """How likely the model itself holds an id to be, and its likeliest ones.

    Natural logarithms of the softmax over the whole vocabulary: before bias, grammar, penalties
    and temperature.
    """

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]
    """(id, logprob), the likeliest first; as many as were asked for."""


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
    """Of `token_id`, where SamplingParams.logprobs asks for them."""
    prompt_logprobs: tuple[Logprobs | None, ...] | None = None
    """Of the prompt's ids, on a sequence's first step alone. The first id has none."""


class Usage(msgspec.Struct, frozen=True):
    """What one sequence has taken so far."""

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


class Sequence(msgspec.Struct, eq=False):
    """One request in the engine.

    Only the thread that turns the crank changes it, except for `cancelled`, which any
    thread may set.
    """

    prompt: NDArray[np.int64]
    """[prompt tokens], at least one."""
    params: SamplingParams
    sampler: Sampler
    eos_token_ids: frozenset[int]
    """Ids that end this answer."""
    room: int
    """What the slot allows: context length less prompt."""
    deadline: float = math.inf
    """`time.monotonic()` seconds, as all moments below."""
    index: int = 0
    """Its place in its submission."""
    constraint: Constraint | None = None
    submitted: float = 0.0

    tokens: list[int] = msgspec.field(default_factory=list)
    """The answer so far."""
    past: int = 0
    """Tokens whose keys and values are in the slot's cache."""
    slot: int | None = None
    """None while it waits for one, and again when it has ended."""
    arrival: int = -1
    """Its place in the order in which the scheduler was given its sequences."""
    cancelled: bool = False
    ending: FinishReason | None = None
    """Why `tokens` is complete, though the logprobs of its last ids are still to be computed."""
    lookup: PromptLookup | None = None
    """What foretells its ids, once it has decoded."""
    prompt_logprobs: list[Logprobs | None] = msgspec.field(default_factory=lambda: [None])
    """Those computed so far; the first id has none."""
    cached_tokens: int = 0
    """Prompt tokens taken from the cache."""
    started: float | None = None
    """When something of it was first computed."""
    first_step: float | None = None
    latest_step: float | None = None
    delivered: int = 0
    """Ids handed to the consumer."""
    fault: RequestError | None = None
    """Why it ended, where it ended by FinishReason.FAULT: a bug, or a grammar of the request."""

    @property
    def held_slot(self) -> int:
        """The slot of one that runs."""
        if self.slot is None:
            raise RuntimeError("A sequence without a slot was taken for one that runs.")
        return self.slot

    @property
    def length(self) -> int:
        """Tokens of prompt and answer."""
        return len(self.prompt) + len(self.tokens)

    @property
    def unread(self) -> int:
        """Tokens that are not in the cache yet: 1 once it decodes, unless a grammar forces ids."""
        return self.length - self.past

    @property
    def longest_answer(self) -> int:
        """Tokens that the answer can have."""
        return min(self.room, self.params.max_tokens)

    def newest(self) -> int:
        """The last id of prompt and answer."""
        return self.tokens[-1] if self.tokens else int(self.prompt[-1])

    def scored(self, stop: int) -> range:
        """The positions between `past` and `stop` whose logits are needed.

        Those before an id that is to be chosen, or whose logprobs are wanted.
        """
        first = stop - 1 if stop == self.length else stop
        if self.params.logprobs is not None:
            first = min(first, len(self.prompt) - 1)
        if self.params.prompt_logprobs is not None and self.past < len(self.prompt):
            first = 0
        return range(max(first, self.past), stop)

    def deliver(self, step: Step, now: float) -> None:
        """Notes that `step` goes to the consumer."""
        self.first_step = self.first_step or now
        self.latest_step = now
        self.delivered += step.token_id is not None

    def usage(self) -> Usage:
        """What it has taken, up to its latest step."""
        latest = self.latest_step or self.submitted
        started = self.started or latest
        first = self.first_step or started
        return Usage(
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached_tokens,
            completion_tokens=self.delivered,
            queue_ms=(started - self.submitted) * 1000,
            prefill_ms=(first - started) * 1000,
            decode_ms=(latest - first) * 1000,
        )
