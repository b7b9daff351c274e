"""Dialects that no rendering shows, each known by words of its template's source."""

from __future__ import annotations

import msgspec

from handlers.artifact.dialect import HERMES, LiteralArguments, ToolFormat


class Row(msgspec.Struct, frozen=True):
    """The tool calls of a family whose template does not write them as the model does."""

    words: tuple[str, ...]
    """All are in the template's source."""
    tools: ToolFormat
    is_right: bool = False
    """Whether it takes the place of what the template writes for earlier calls."""


HARMONY = Row(
    words=("<|channel|>commentary", "functions.", "<|call|>"),
    tools=ToolFormat(
        trigger="<|channel|>commentary to=functions.",
        begin="",
        call=(
            "<|channel|>commentary to=functions.",
            "name",
            " <|constrain|>json<|message|>",
            "arguments",
            "",
        ),
        separator=None,
        end="",
    ),
    is_right=True,
)
"""gpt-oss. Its template puts the recipient before the channel, where the model puts it after:
https://cookbook.openai.com/articles/openai-harmony#function-calling"""
LFM2 = Row(
    words=("List of tools: ", "<|im_start|>"),
    tools=ToolFormat(
        trigger="<|tool_call_start|>",
        begin="<|tool_call_start|>[",
        call=("", "name", "(", "arguments", ")"),
        separator=", ",
        end="]<|tool_call_end|>",
        arguments=LiteralArguments(
            assign="=",
            separator=", ",
            quote="'",
            nested_assign=": ",
            quoted_keys=True,
            null="None",
            true="True",
            false="False",
        ),
        in_history=False,
    ),
)
"""LFM2 and 2.5, whose templates list tools and leave calls out:
https://docs.liquid.ai/lfm/key-concepts/tool-use"""
SMOLLM3 = Row(
    words=("xml_tools", "<tool_call>"),
    tools=msgspec.structs.replace(HERMES, variable="xml_tools", in_history=False),
)
"""Its system message asks for Hermes's form, its turns leave calls out."""
GRANITE_3 = Row(
    words=("respond only with <|tool_call|> followed by a JSON list",),
    tools=ToolFormat(
        trigger="<|tool_call|>",
        begin="<|tool_call|>[",
        call=HERMES.call,
        separator=", ",
        end="]",
        in_history=False,
    ),
)
"""Granite 3.1 to 3.3, whose system message says so and whose turns leave calls out."""

ROWS = (HARMONY, LFM2, SMOLLM3, GRANITE_3)


def known_row(source: str) -> Row | None:
    """Returns the row of a template's family."""
    return next((row for row in ROWS if all(word in source for word in row.words)), None)
