"""One request inside the engine: its ids, its parameters and its state."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from handlers.engine.params import (
    Constraint,
    FinishReason,
    GenerationStats,
    Logprobs,
    SamplingParams,
    Step,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from handlers.engine.prompt_lookup import PromptLookup
    from handlers.engine.sampler import Sampler
    from handlers.errors import RequestError


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

    def stats(self) -> GenerationStats:
        """What it has taken, up to its latest step."""
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
        )
