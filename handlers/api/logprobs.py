"""Writes how likely the tokens of an answer were: OpenAI's `logprobs`, the newer and older form."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from handlers.api.schemas import ResponseSchema

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from handlers.text.logprobs import ScoredAlternative, ScoredToken


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
