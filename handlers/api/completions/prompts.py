"""The four forms of a completion's `prompt`: a text, texts, ids, or lists of ids.

Called by endpoint.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from handlers.api.parsing import PromptInput, as_list

if TYPE_CHECKING:
    from handlers.api.model import DecoderModel


class TextPrompt(msgspec.Struct, frozen=True):
    """One prompt."""

    ids: list[int]
    text: str | None
    """None for a prompt that came as ids."""


def read_prompts(
    model: DecoderModel, prompt: PromptInput, add_special_tokens: bool
) -> list[TextPrompt]:
    """Reads texts to ids. Raises InvalidRequest and ContextLengthExceeded.

    Prompts that came as ids are checked by the engine.

    `add_special_tokens`: whether a text gets what the model expects around it.
    """

    def read(part: str | list[int], field: str) -> TextPrompt:
        if not isinstance(part, str):
            return TextPrompt(part, None)
        ids = model.reader.encode(part, param=field, add_special_tokens=add_special_tokens)
        return TextPrompt(ids, part)

    if isinstance(prompt, str):
        return [read(prompt, "prompt")]
    parts = as_list(prompt, "prompt")
    return [read(part, f"prompt[{place}]") for place, part in enumerate(parts)]


def spelt(model: DecoderModel, prompts: list[TextPrompt]) -> list[str]:
    """The texts that an echo gives back: those of ids have their special tokens spelt out."""
    return [
        model.tokenizer.decode(prompt.ids, skip_special_tokens=False)
        if prompt.text is None
        else prompt.text
        for prompt in prompts
    ]
