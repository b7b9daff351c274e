"""The prompts of a completion, and their texts and logprobs where a request has them echoed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from handlers.text.logprobs import prompt_logprobs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from handlers.text.completion import Delta
    from handlers.text.logprobs import ScoredToken
    from handlers.text.tokenizer import Tokenizer


class TokenisedPrompt(msgspec.Struct, frozen=True):
    """One prompt of a request."""

    ids: list[int]
    text: str | None
    """None for a prompt that came as ids."""


class PromptEcho:
    """The prompts that are returned in front of their choices, with their logprobs."""

    def __init__(self, tokenizer: Tokenizer, prompts: Sequence[TokenisedPrompt], n: int) -> None:
        self._tokenizer = tokenizer
        self._n = n
        self._ids = [prompt.ids for prompt in prompts]
        # Prompts that came as ids have their special tokens in their text.
        self._texts = [
            tokenizer.decode(prompt.ids, skip_special_tokens=False)
            if prompt.text is None
            else prompt.text
            for prompt in prompts
        ]
        self._tokens: dict[int, tuple[ScoredToken, ...]] = {}
        """The tokens of each prompt whose logprobs are known, by the prompt's position."""

    def first(self, index: int) -> int:
        """Returns the first choice of the same prompt: it brings the prompt's logprobs."""
        return index - index % self._n

    def text(self, index: int) -> str:
        """Returns the text in front of a choice."""
        return self._texts[index // self._n]

    def tokens(self, choice: Delta) -> tuple[ScoredToken, ...]:
        """Returns the tokens of that text, decoded once for all choices of a prompt."""
        prompt = choice.index // self._n
        if choice.prompt_logprobs is not None:
            self._tokens[prompt] = prompt_logprobs(
                self._tokenizer, self._texts[prompt], self._ids[prompt], choice.prompt_logprobs
            )
        return self._tokens.get(prompt, ())
