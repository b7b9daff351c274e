"""One request inside the engine: its ids, its parameters and its state."""

from __future__ import annotations

import enum
from dataclasses import dataclass


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
