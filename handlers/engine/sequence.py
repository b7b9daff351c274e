"""One request inside the engine: its ids, its parameters and its state."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from handlers.engine.sampler import Sampler
    from handlers.errors import EngineFault


class FinishReason(enum.Enum):
    """Why a sequence ended."""

    EOS = "eos"
    LENGTH = "length"
    """max_tokens reached."""
    CONTEXT = "context"
    """The slot is full."""
    DEADLINE = "deadline"
    CANCELLED = "cancelled"
    FAULT = "fault"
    """The step that it was part of failed; the log has the reason."""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next id is chosen, and when to stop. Ranges are checked by the API.

    A temperature of 0 is greedy: the other filters and the seed then have no effect,
    the penalties still do.
    """

    max_tokens: int
    min_tokens: int = 0
    """No end-of-sequence id is chosen before this many ids."""
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


@dataclass(frozen=True, slots=True)
class Step:
    """One generated id, or the end.

    A step with `finish_reason` is a sequence's last. Its `token_id` is None unless the
    sequence ended by length or context with this very id (an eos id is never delivered:
    it is not text).
    """

    token_id: int | None
    finish_reason: FinishReason | None = None


@dataclass(slots=True, eq=False)
class Sequence:
    """One request in the engine.

    Only the thread that turns the crank changes it, except for `cancelled`, which any
    thread may set.
    """

    prompt: NDArray[np.int64]
    """[prompt tokens], at least one."""
    sampler: Sampler
    eos_token_ids: frozenset[int]
    """Ids that end this answer; none when eos is to be ignored."""
    max_tokens: int
    """What the request allows."""
    room: int
    """What the slot allows: context length less prompt."""
    deadline: float = math.inf
    """`time.monotonic()` seconds."""

    tokens: list[int] = field(default_factory=list)
    """The answer so far."""
    past: int = 0
    """Tokens whose keys and values are in the slot's cache."""
    slot: int = -1
    """-1 while it waits for one, and again when it has ended."""
    arrival: int = -1
    """Its place in the order in which the scheduler was given its sequences."""
    cancelled: bool = False
    fault: EngineFault | None = None
    """Why it ended, where it ended by FinishReason.FAULT. For the log."""

    @property
    def unread(self) -> int:
        """Prompt tokens that are still to be computed; 0 once it decodes."""
        return max(0, len(self.prompt) - self.past)
