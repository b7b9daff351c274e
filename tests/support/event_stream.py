"""Reads server-sent events back, as a client does."""

from __future__ import annotations

import json
from typing import Any

DONE = "[DONE]"


def events(body: bytes) -> list[Any]:
    """The JSON of each event. Raises ValueError for a stream that [DONE] does not end."""
    blocks = body.decode().removesuffix("\n\n").split("\n\n")
    data = [block.removeprefix("data: ") for block in blocks]
    if data[-1] != DONE:
        raise ValueError(f"The stream ends with {data[-1]!r}.")
    return [json.loads(text) for text in data[:-1]]


def joined_text(chunks: list[Any]) -> str:
    """The text of a chat's or a completion's chunks."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(
        choice["delta"].get("content") or "" if "delta" in choice else choice["text"]
        for choice in choices
    )


def finish_reason(chunks: list[Any]) -> str:
    """The finish reason of the only chunk that has one."""
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    (reason,) = reasons
    return str(reason)
