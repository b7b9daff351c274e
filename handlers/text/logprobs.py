"""Tokens with their logprobs: the engine's ids turned into the text and bytes that clients read."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from handlers.engine.params import Logprobs
    from handlers.text.tokenizer import Tokenizer


class ScoredAlternative(msgspec.Struct, frozen=True):
    """One of the likeliest tokens at a position."""

    text: str
    """U+FFFD for the bytes of a character that is not whole."""
    bytes: bytes
    logprob: float


class ScoredToken(msgspec.Struct, frozen=True):
    """A token of an answer or of a prompt, with its logprob."""

    text: str
    bytes: bytes
    logprob: float | None
    """None for a prompt's first token, which nothing predicts."""
    top: tuple[ScoredAlternative, ...]
    """The likeliest at its position, in descending order; the token may be among them."""
    offset: int
    """Characters before it, in the answer or in the prompt."""


def token_logprob(tokenizer: Tokenizer, logprobs: Logprobs, offset: int) -> ScoredToken:
    """Returns a token of an answer with its text and bytes."""
    raw = tokenizer.token_bytes[logprobs.token_id]
    top = tuple(_top_logprob(tokenizer, *alternative) for alternative in logprobs.top)
    return ScoredToken(_text(raw), raw, logprobs.logprob, top, offset)


def prompt_logprobs(
    tokenizer: Tokenizer, prompt: str, ids: Iterable[int], logprobs: Iterable[Logprobs | None]
) -> tuple[ScoredToken, ...]:
    """Returns the tokens of a prompt, whose text `prompt` is, with their text and bytes."""
    detokenizer, offset, tokens = tokenizer.detokenizer(), 0, []
    for token_id, one in zip(ids, logprobs, strict=True):
        if one is None:
            raw = tokenizer.token_bytes[token_id]
            tokens.append(ScoredToken(_text(raw), raw, None, (), offset))
        else:
            tokens.append(token_logprob(tokenizer, one, offset))
        # The detokenizer leaves special tokens out. Those whose name is in the prompt's text count,
        # those that were put around it do not.
        offset += len(detokenizer.push(token_id))
        if token_id in tokenizer.special_ids and prompt.startswith(tokens[-1].text, offset):
            offset += len(tokens[-1].text)
    return tuple(tokens)


def _top_logprob(tokenizer: Tokenizer, token_id: int, logprob: float) -> ScoredAlternative:
    raw = tokenizer.token_bytes[token_id]
    return ScoredAlternative(_text(raw), raw, logprob)


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
