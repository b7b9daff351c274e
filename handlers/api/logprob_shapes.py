"""Tokens and their logprobs in OpenAI's two shapes.

Knows no endpoint and no engine. Called by the choices of chats and completions, and by responses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from handlers.text.logprobs import TokenLogprob, TopLogprob


def chat_logprobs(tokens: Iterable[TokenLogprob]) -> dict[str, object]:
    """A chat choice's `logprobs`."""
    return {"content": token_logprobs(tokens), "refusal": None}


def token_logprobs(tokens: Iterable[TokenLogprob]) -> list[dict[str, object]]:
    """An object for each token, with its exact bytes."""
    return [
        _described(token) | {"top_logprobs": [_described(other) for other in token.top]}
        for token in tokens
    ]


def legacy_logprobs(tokens: Sequence[TokenLogprob], before: int = 0) -> dict[str, list[object]]:
    """A text choice's `logprobs`: four lists side by side.

    `before`: characters of the choice's text that stand before the tokens' own, of an echo.
    """
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_by_text(token) for token in tokens],
        "text_offset": [before + token.offset for token in tokens],
    }


def _described(token: TokenLogprob | TopLogprob) -> dict[str, object]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.bytes)}


def _by_text(token: TokenLogprob) -> dict[str, float] | None:
    """The likeliest tokens and the chosen one; of two that read the same, the likelier."""
    if token.logprob is None:
        return None
    others = {other.text: other.logprob for other in reversed(token.top)}
    return others | {token.text: max(token.logprob, others.get(token.text, token.logprob))}
