"""Encodes prompts, and refuses those that are too long before they are tokenised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from handlers.errors import ContextLengthExceeded, InvalidRequest

if TYPE_CHECKING:
    from handlers.text.tokenizer import Tokenizer

# Of one text, where the tokenizer may drop characters. Each takes up to 210 bytes of memory and
# 1.3 us; the longest texts that models take, of 32,768 tokens, have half as many.
MAX_CHARACTERS = 2**18


def check_text(text: str, param: str) -> None:
    """Raises InvalidRequest, which names the field `param`, for a text with a null character."""
    if "\0" in text:
        raise InvalidRequest(f"{param} has a null character: remove it.", param=param)


def check_size(characters: int, param: str) -> None:
    """Raises ContextLengthExceeded for a text that is too long even to be truncated."""
    if characters > MAX_CHARACTERS:
        raise ContextLengthExceeded(
            f"{param} has {characters:,} characters, which are over the limit of "
            f"{MAX_CHARACTERS:,}: send it in parts.",
            param=param,
        )


class PromptEncoder(msgspec.Struct, frozen=True):
    """Encodes prompts with one tokenizer, within one context."""

    tokenizer: Tokenizer
    context_length: int | None
    """None for a tokenizer that leaves characters out: its size does not say how many tokens."""
    advice: str = "Shorten it."
    """The end of an error about a prompt that is too long."""

    def check_length(self, characters: int, param: str) -> None:
        """Raises ContextLengthExceeded for text that is too long by its size alone.

        `param` is the field that the error names.
        """
        context = self.context_length
        if context is None:
            check_size(characters, param)
            return
        if characters <= context:
            return
        if characters > context * self.tokenizer.longest_token:
            raise ContextLengthExceeded(
                f"The prompt is too long: it has {characters:,} characters, which are more than "
                f"the context of {context:,} tokens can hold. {self.advice}",
                param=param,
            )

    def check_room(self, tokens: int, param: str) -> None:
        """Raises ContextLengthExceeded for a prompt that leaves no room for an answer."""
        context = self.context_length
        if context is not None and tokens >= context:
            raise ContextLengthExceeded(
                f"The prompt is too long: it has {tokens:,} tokens, and the context holds "
                f"{context:,} of prompt and answer together. {self.advice}",
                param=param,
            )

    def encode(self, prompt: str, *, param: str, add_special_tokens: bool = False) -> list[int]:
        """Returns the prompt's ids. `param` is the field that an error names.

        Raises InvalidRequest for an empty prompt, a null or a lone surrogate. Raises
        ContextLengthExceeded, without tokenising, for a text that is too long by its size alone:
        tokenising 1 MB takes 0.7 s, in which no other request would get a token.
        """
        self.check_length(len(prompt), param)
        check_text(prompt, param)
        try:
            ids = self.tokenizer.encode(prompt, add_special_tokens)
        except InvalidRequest as error:
            raise InvalidRequest(str(error), param=param) from None
        if not ids:
            raise InvalidRequest("The prompt is empty: send at least one token.", param=param)
        return ids
