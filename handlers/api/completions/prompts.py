"""The four forms of a completion's `prompt`: a text, texts, ids, or lists of ids.

Called by endpoint.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from handlers.api.texts_or_ids import TextsOrIds, several

if TYPE_CHECKING:
    from handlers.api.model import Model


class TextPrompt(msgspec.Struct, frozen=True):
    """One prompt."""

    ids: list[int]
    text: str | None
    """None for a prompt that came as ids."""


def read_prompts(model: Model, prompt: TextsOrIds) -> list[TextPrompt]:
    """Raises InvalidRequest and ContextLengthExceeded. The engine checks the ids."""
    if isinstance(prompt, str):
        return [_text(model, prompt, "prompt")]
    return [
        _text(model, part, f"prompt[{place}]") if isinstance(part, str) else TextPrompt(part, None)
        for place, part in enumerate(several(prompt, "prompt"))
    ]


def spelt(model: Model, prompts: list[TextPrompt]) -> list[str]:
    """What an echo gives back: the texts themselves, or those of ids, special tokens spelt out."""
    return [
        model.tokenizer.decode(prompt.ids, skip_special_tokens=False)
        if prompt.text is None
        else prompt.text
        for prompt in prompts
    ]


def _text(model: Model, text: str, field: str) -> TextPrompt:
    ids = model.reader.encode(text, param=field, add_special_tokens=True)
    return TextPrompt(ids, text)
