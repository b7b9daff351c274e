"""The content of a message: a text, or a list of parts, of which the model reads the texts.

The parts of a chat and of a response differ in the names of their types alone, so either takes the
other's. Called by chat/messages.py and responses/items.py.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from handlers.errors import InvalidRequest, quoted

TEXTS = {
    "text": "text",
    "input_text": "text",
    "output_text": "text",
    "refusal": "refusal",
}
"""The types that are read, each with the field that has its text. What an assistant, of another
server, would not do is text to the model."""

THOUGHTS = ("reasoning_text", "reasoning", "thinking", "redacted_thinking")
"""The types of what another server's model thought. Chat templates leave it out, so do we."""

MEDIA = ("image", "audio", "video", "file")


class Part(msgspec.Struct, frozen=True):
    """A piece of what a message says."""

    type: Annotated[str, Meta(extra_json_schema={"enum": [*TEXTS, *THOUGHTS]})]
    text: str | None = None
    refusal: str | None = None


Content = str | list[Part]


def text_of(content: Content | None, at: str) -> str:
    """The text of a content. Line breaks join its parts, as in vLLM and llama.cpp.

    `at`: the path to the content, for errors. Raises InvalidRequest.
    """
    if isinstance(content, list):
        read = [
            _read(part, f"{at}[{place}]")
            for place, part in enumerate(content)
            if part.type not in THOUGHTS
        ]
        return "\n".join(read)
    return content or ""


def _read(part: Part, at: str) -> str:
    field = TEXTS.get(part.type)
    if field is None:
        media = next((f"the {medium}" for medium in MEDIA if medium in part.type), "it")
        raise InvalidRequest(
            f"{at} is of type {quoted(part.type)}, but this model reads text only: leave {media} "
            "out.",
            param=at,
        )
    text: str | None = getattr(part, field)
    if text is None:
        raise InvalidRequest(f"{at}.{field} is required.", param=f"{at}.{field}")
    return text
