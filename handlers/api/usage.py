"""What an answer has taken: the body's `usage` and the head's Server-Timing.

Knows OpenAI's shape and no endpoint. Called by answer.py and by what shapes the bodies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.api.http import TokenUsage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from handlers.engine.params import GenerationStats

TIMING_HEADER = "server-timing"


def total_usage(usages: Sequence[GenerationStats], choices_each: int) -> TokenUsage:
    """Adds up the tokens of all choices, of which each prompt has `choices_each` in a row.

    A prompt counts once, however many choices it has.
    """
    prompts = usages[::choices_each]
    return TokenUsage(
        prompt_tokens=sum(usage.prompt_tokens for usage in prompts),
        completion_tokens=sum(usage.completion_tokens for usage in usages),
        cached_tokens=sum(usage.cached_tokens for usage in prompts),
    )


def usage_body(usage: TokenUsage) -> dict[str, object]:
    """Makes OpenAI's `usage`. No model here hides its reasoning: clients read the 0."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": 0},
    }


def timing_head(usage: GenerationStats) -> dict[str, str]:
    """What is known when a stream's first text leaves."""
    return timing_header(queue=usage.queue_ms, prefill=usage.prefill_ms)


def timing_whole(usages: Iterable[GenerationStats]) -> dict[str, str]:
    """Of several choices the longest times: they run side by side."""
    several = list(usages)
    return timing_header(
        queue=max(usage.queue_ms for usage in several),
        prefill=max(usage.prefill_ms for usage in several),
        decode=max(usage.decode_ms for usage in several),
    )


def timing_header(**milliseconds: float) -> dict[str, str]:
    """The header, as https://www.w3.org/TR/server-timing/ has it."""
    metrics = (f"{name};dur={duration:.1f}" for name, duration in milliseconds.items())
    return {TIMING_HEADER: ", ".join(metrics)}
