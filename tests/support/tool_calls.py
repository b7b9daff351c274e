"""The formats of tool calls, and an answer in one of them taken apart."""

from __future__ import annotations

from collections.abc import Iterable

from handlers.text.tool_format import HERMES, LLAMA, MISTRAL, MISTRAL_SPACED, ToolFormat
from handlers.text.tool_parser import CallStart, ContentDelta, Delta, ToolCallParser

FORMATS = {"Hermes": HERMES, "Llama": LLAMA, "Mistral": MISTRAL, "Mistral, spaced": MISTRAL_SPACED}

Call = tuple[str, str]


def joined(deltas: Iterable[Delta]) -> tuple[str, list[Call]]:
    """The text, and each call's name and arguments."""
    content = ""
    names: list[str] = []
    arguments: list[str] = []
    for delta in deltas:
        if isinstance(delta, ContentDelta):
            assert delta.text
            content += delta.text
        elif isinstance(delta, CallStart):
            assert delta.index == len(names)
            names.append(delta.name)
            arguments.append("")
        else:
            assert delta.index == len(names) - 1
            assert delta.text
            arguments[-1] += delta.text
    return content, list(zip(names, arguments, strict=True))


def parse(tool_format: ToolFormat, pieces: Iterable[str]) -> tuple[str, list[Call]]:
    parser = ToolCallParser(tool_format)
    deltas = [delta for piece in pieces for delta in parser.push(piece)]
    return joined([*deltas, *parser.flush()])
