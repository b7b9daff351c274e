"""The formats of tool calls, and an answer in one of them taken apart."""

from __future__ import annotations

from collections.abc import Iterable

from handlers.artifact.dialect import HERMES, ToolFormat
from handlers.text.answer_format import ToolCallDelta
from handlers.text.tool_parser import ToolCallParser
from tests.support.tool_formats import LLAMA, MISTRAL, MISTRAL_SPACED

FORMATS = {"Hermes": HERMES, "Llama": LLAMA, "Mistral": MISTRAL, "Mistral, spaced": MISTRAL_SPACED}

Call = tuple[str, str]


def joined(deltas: Iterable[ToolCallDelta]) -> list[Call]:
    """Each call's name and arguments."""
    names: list[str] = []
    arguments: list[str] = []
    for delta in deltas:
        if delta.id is None:
            assert delta.name is None
            assert delta.index == len(names) - 1
            assert delta.arguments
            arguments[-1] += delta.arguments
        else:
            assert delta.index == len(names)
            assert delta.name is not None
            names.append(delta.name)
            arguments.append(delta.arguments)
    return list(zip(names, arguments, strict=True))


def parse(tool_format: ToolFormat, pieces: Iterable[str]) -> tuple[str, list[Call]]:
    """The text, and each call's name and arguments."""
    parser = ToolCallParser(tool_format)
    parsed = [*map(parser.push, pieces), parser.flush()]
    content = "".join(text for text, _ in parsed)
    return content, joined(delta for _, deltas in parsed for delta in deltas)
