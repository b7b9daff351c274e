"""Formats of tool calls that tests name."""

from __future__ import annotations

from handlers.artifact.dialect import HERMES, Dialect, ToolFormat

LLAMA = ToolFormat(
    trigger="{",
    begin="",
    call=('{"name": "', "name", '", "parameters": ', "arguments", "}"),
    separator=None,
    end="",
    at_start=True,
)
"""Llama 3.1 to 3.3, whose template refuses more than one call."""
MISTRAL = ToolFormat(
    trigger="[TOOL_CALLS]",
    begin="[TOOL_CALLS][",
    call=HERMES.call,
    separator=", ",
    end="]",
    id_length=9,
)
"""Mistral's tokenizers v3 to v7, whose templates want ids of 9 letters and digits."""
MISTRAL_SPACED = ToolFormat(
    trigger="[TOOL_CALLS]",
    begin="[TOOL_CALLS] [",
    call=HERMES.call,
    separator=", ",
    end="]",
    id_length=9,
)


def dialect_by_words(template: str) -> Dialect:
    """The dialect of a test's own template, which names its form of calls by a word."""
    if "tools" not in template:
        return Dialect()
    if "[TOOL_CALLS]" in template:
        return Dialect(tools=MISTRAL)
    if "<tool_call>" in template:
        return Dialect(tools=HERMES)
    return Dialect(tools=LLAMA if '"parameters": ' in template else None)
