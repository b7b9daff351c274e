"""Tokens with their logprobs, as a client reads them: the engine's ids turned into text.

Called by completion.py, for requests that ask for logprobs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from handlers.engine.params import Logprobs
    from handlers.text.tokenizer import Tokenizer


class TokenText(msgspec.Struct, frozen=True):
    """A token that is likely at some place."""

    text: str
    """U+FFFD for the bytes of a character that is not whole."""
    bytes: bytes
    logprob: float


class Token(msgspec.Struct, frozen=True):
    """A token of an answer or of a prompt."""

    text: str
    bytes: bytes
    logprob: float | None
    """None for a prompt's first token, which nothing predicts."""
    top: tuple[TokenText, ...]
    """The likeliest at its place, the likeliest first; it may be among them."""
    offset: int
    """Characters before it, in the answer or in the prompt."""


def read_token(tokenizer: Tokenizer, logprobs: Logprobs, offset: int) -> Token:
    """An id of an answer, as text."""
    raw = tokenizer.spelling[logprobs.token_id]
    top = tuple(_read_one(tokenizer, *alternative) for alternative in logprobs.top)
    return Token(_text(raw), raw, logprobs.logprob, top, offset)


def read_prompt(
    tokenizer: Tokenizer, prompt: str, ids: Iterable[int], logprobs: Iterable[Logprobs | None]
) -> tuple[Token, ...]:
    """A prompt's ids, as text. `prompt`: what they are the ids of."""
    decoder, offset, tokens = tokenizer.decoder(), 0, []
    for token_id, one in zip(ids, logprobs, strict=True):
        if one is None:
            raw = tokenizer.spelling[token_id]
            tokens.append(Token(_text(raw), raw, None, (), offset))
        else:
            tokens.append(read_token(tokenizer, one, offset))
        # The decoder leaves special tokens out. Those that the prompt spells count, those that
        # were put around it do not.
        offset += len(decoder.push(token_id))
        if token_id in tokenizer.special_ids and prompt.startswith(tokens[-1].text, offset):
            offset += len(tokens[-1].text)
    return tuple(tokens)


def _read_one(tokenizer: Tokenizer, token_id: int, logprob: float) -> TokenText:
    raw = tokenizer.spelling[token_id]
    return TokenText(_text(raw), raw, logprob)


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
