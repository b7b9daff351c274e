"""Tells what an answer took and how likely its tokens were: usage, Server-Timing and logprobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from handlers.api.http import TokenUsage
from handlers.api.schemas import ResponseSchema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from handlers.engine.params import GenerationStats
    from handlers.text.logprobs import ScoredAlternative, ScoredToken

TIMING_HEADER = "server-timing"


class PromptTokensDetails(ResponseSchema, frozen=True, kw_only=True):
    """`cached_tokens` of the prompt were read from an earlier request's cache."""

    cached_tokens: int


class CompletionTokensDetails(ResponseSchema, frozen=True, kw_only=True):
    """No model here hides its reasoning."""

    reasoning_tokens: int


class Usage(ResponseSchema, frozen=True, kw_only=True):
    """Tokens of the prompt and of the answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails

    @classmethod
    def of(cls, tokens: TokenUsage) -> Usage:
        """Returns the counts as OpenAI has them. Clients read the 0 of the reasoning."""
        return cls(
            prompt_tokens=tokens.prompt_tokens,
            completion_tokens=tokens.completion_tokens,
            total_tokens=tokens.prompt_tokens + tokens.completion_tokens,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=tokens.cached_tokens),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=0),
        )


class TopLogprob(ResponseSchema, frozen=True, kw_only=True):
    """A token that could have come."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(TopLogprob, frozen=True, kw_only=True):
    """A token that came, and the likeliest ones in its place."""

    top_logprobs: list[TopLogprob]


class TextLogprobs(ResponseSchema, frozen=True, kw_only=True):
    """OpenAI's older form: four lists with an entry for each token."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]

    @classmethod
    def of(
        cls, tokens: Sequence[ScoredToken], echoed: Sequence[ScoredToken], offset: int
    ) -> TextLogprobs:
        """Returns the logprobs of a choice's tokens, after those of the echoed prompt.

        `offset`: characters of the choice's text in front of its own tokens.
        """
        several = (*echoed, *tokens)
        offsets = [token.offset for token in echoed]
        return cls(
            tokens=[token.text for token in several],
            token_logprobs=[token.logprob for token in several],
            top_logprobs=[_by_text(token) for token in several],
            text_offset=offsets + [offset + token.offset for token in tokens],
        )


def total_usage(stats: Sequence[GenerationStats], n: int) -> TokenUsage:
    """Adds up the tokens of all choices, of which each prompt has `n` in a row.

    A prompt counts once, however many choices it has.
    """
    prompts = stats[::n]
    return TokenUsage(
        prompt_tokens=sum(each.prompt_tokens for each in prompts),
        completion_tokens=sum(each.completion_tokens for each in stats),
        cached_tokens=sum(each.cached_tokens for each in prompts),
    )


def token_logprobs(tokens: Iterable[ScoredToken]) -> list[TokenLogprob]:
    """Returns the logprobs of tokens as chats and responses have them, with their exact bytes."""
    return [
        TokenLogprob(
            token=token.text,
            logprob=cast("float", token.logprob),  # only a prompt's first token has none
            bytes=list(token.bytes),
            top_logprobs=[_top_logprob(other) for other in token.top],
        )
        for token in tokens
    ]


def _top_logprob(token: ScoredAlternative) -> TopLogprob:
    return TopLogprob(token=token.text, logprob=token.logprob, bytes=list(token.bytes))


def _by_text(token: ScoredToken) -> dict[str, float] | None:
    """Returns the likeliest tokens and the chosen one; of two with one text, the likelier."""
    if token.logprob is None:
        return None
    others = {other.text: other.logprob for other in reversed(token.top)}
    return others | {token.text: max(token.logprob, others.get(token.text, token.logprob))}


def stream_timing(stats: GenerationStats) -> dict[str, str]:
    """Returns the header of a stream: the times that are over when its first text leaves."""
    return server_timing(queue=stats.queue_ms, prefill=stats.prefill_ms)


def answer_timing(stats: Iterable[GenerationStats]) -> dict[str, str]:
    """Returns the header of a whole answer: of its choices, which run side by side, the longest."""
    several = list(stats)
    return server_timing(
        queue=max(each.queue_ms for each in several),
        prefill=max(each.prefill_ms for each in several),
        decode=max(each.decode_ms for each in several),
    )


def server_timing(**milliseconds: float) -> dict[str, str]:
    """Returns the header that https://www.w3.org/TR/server-timing/ defines."""
    metrics = (f"{name};dur={duration:.1f}" for name, duration in milliseconds.items())
    return {TIMING_HEADER: ", ".join(metrics)}
