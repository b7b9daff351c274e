"""The formats of tool calls that are known by a word of the chat template's source."""

from __future__ import annotations

import re

from handlers.artifact.dialect import HERMES, ToolFormat

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


def known_tool_format(template: str | None) -> ToolFormat | None:
    """Returns the format that a chat template writes, None for none that is known."""
    source = template or ""
    if not re.search(r"\btools\b", source):
        return None
    if "[TOOL_CALLS]" in source and "[ARGS]" not in source:
        return MISTRAL_SPACED if "[TOOL_CALLS] [" in source else MISTRAL
    if "<tool_call>" in source and "<function=" not in source:
        return HERMES
    return LLAMA if '"parameters": ' in source else None
