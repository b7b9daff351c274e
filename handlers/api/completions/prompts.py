"""The four forms of a completion's `prompt`: a text, texts, ids, or lists of ids.

Called by endpoint.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from handlers.api.fields import TokenId
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from handlers.api.model import Model

_TEXT = {"type": "string", "minLength": 1}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_LISTS = [{"type": "array", "items": items, "minItems": 1} for items in (_TEXT, _IDS)]

# read_prompts is stricter than the type can be, and says so in the OpenAPI document.
Prompts = Annotated[
    str | list[str | TokenId | list[TokenId]],
    Meta(extra_json_schema={"allOf": [{"anyOf": [_TEXT, _IDS, *_LISTS]}]}),
]


class TextPrompt(msgspec.Struct, frozen=True):
    """One prompt."""

    ids: list[int]
    text: str | None
    """None for a prompt that came as ids."""


def read_prompts(model: Model, prompt: Prompts) -> list[TextPrompt]:
    """Raises InvalidRequest and ContextLengthExceeded. The engine checks the ids."""
    if isinstance(prompt, str):
        return [_text(model, prompt, "prompt")]
    texts = [part for part in prompt if isinstance(part, str)]
    ids = [part for part in prompt if isinstance(part, int)]
    lists = [part for part in prompt if isinstance(part, list)]
    if len(prompt) not in {len(texts), len(ids), len(lists)}:
        raise InvalidRequest("prompt mixes texts and ids: send one kind.", param="prompt")
    if ids or not prompt:
        return [TextPrompt(ids, None)]
    if lists:
        return [TextPrompt(part, None) for part in lists]
    return [_text(model, text, f"prompt[{place}]") for place, text in enumerate(texts)]


def spelt(model: Model, prompts: list[TextPrompt]) -> list[str]:
    """What an echo gives back: the texts themselves, or those of ids, special tokens spelt out."""
    return [
        model.tokenizer.decode(prompt.ids, skip_special_tokens=False)
        if prompt.text is None
        else prompt.text
        for prompt in prompts
    ]


def _text(model: Model, text: str, field: str) -> TextPrompt:
    ids = model.completer.encode(text, param=field, add_special_tokens=True)
    return TextPrompt(ids, text)
