"""The four forms of a completion's `prompt`: a text, texts, ids, or lists of ids.

Called by completions.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from handlers.api.model import Model
    from handlers.text.tokenizer import Tokenizer

Prompts = str | list[str | int | list[int]]


@dataclass(frozen=True, slots=True)
class TextPrompt:
    """One prompt."""

    ids: list[int]
    text: str | None
    """None for a prompt that came as ids."""

    def spelt(self, tokenizer: Tokenizer) -> str:
        """What an echo gives back: the text itself, or that of the ids, special tokens spelt."""
        if self.text is not None:
            return self.text
        return tokenizer.decode(self.ids, skip_special_tokens=False)


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


def _text(model: Model, text: str, field: str) -> TextPrompt:
    ids = model.completer.encode(text, param=field, add_special_tokens=True)
    return TextPrompt(ids, text)
