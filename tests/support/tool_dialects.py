"""Formats of tool calls in every style that models have, as their chat templates write them."""

from __future__ import annotations

from handlers.artifact.dialect import (
    HERMES,
    JsonArguments,
    LiteralArguments,
    TaggedArguments,
    ToolFormat,
)

CODER = ToolFormat(
    trigger="<tool_call>",
    begin="<tool_call>\n",
    call=("<function=", "name", ">\n", "arguments", "\n</function>"),
    separator="\n</tool_call>\n<tool_call>\n",
    end="\n</tool_call>",
    arguments=TaggedArguments("<parameter=", ">\n", "\n</parameter>", "\n"),
)
GLM = ToolFormat(
    trigger="<tool_call>",
    begin="",
    call=("<tool_call>", "name", "\n", "arguments", "\n</tool_call>"),
    separator="\n",
    end="",
    arguments=TaggedArguments(
        "<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>", separator="\n"
    ),
)
GLM_DENSE = ToolFormat(
    trigger="<tool_call>",
    begin="",
    call=("<tool_call>", "name", "", "arguments", "</tool_call>"),
    separator="",
    end="",
    arguments=TaggedArguments("<arg_key>", "</arg_key><arg_value>", "</arg_value>"),
)
MINIMAX = ToolFormat(
    trigger="<minimax:tool_call>",
    begin="<minimax:tool_call>\n",
    call=('<invoke name="', "name", '">\n', "arguments", "</invoke>\n"),
    separator="",
    end="</minimax:tool_call>",
    arguments=TaggedArguments('<parameter name="', '">', "</parameter>\n"),
)
MINICPM = ToolFormat(
    trigger='<function name="',
    begin="",
    call=('<function name="', "name", '">', "arguments", "</function>"),
    separator="\n",
    end="",
    arguments=TaggedArguments('<param name="', '">', "</param>", cdata=True),
)
DSML = ToolFormat(
    trigger="<|DSML|function_calls>",
    begin="<|DSML|function_calls>\n",
    call=('<|DSML|invoke name="', "name", '">\n', "arguments", "\n</|DSML|invoke>\n"),
    separator="",
    end="</|DSML|function_calls>",
    arguments=TaggedArguments(
        '<|DSML|parameter name="',
        '" string="true">',
        "</|DSML|parameter>",
        separator="\n",
        other_middle='" string="false">',
    ),
)
LFM = ToolFormat(
    trigger="<|tool_call_start|>",
    begin="<|tool_call_start|>[",
    call=("", "name", "(", "arguments", ")"),
    separator=", ",
    end="]<|tool_call_end|>",
    arguments=LiteralArguments(
        "=", ", ", "'", ": ", quoted_keys=True, null="None", true="True", false="False"
    ),
)
GEMMA = ToolFormat(
    trigger="<|tool_call>",
    begin="",
    call=("<|tool_call>call:", "name", "{", "arguments", "}<tool_call|>"),
    separator="",
    end="",
    arguments=LiteralArguments(":", ",", '<|"|>', ":", quoted_keys=False),
)
NEMO = ToolFormat(
    trigger="[TOOL_CALLS]",
    begin="[TOOL_CALLS][",
    call=('{"name": "', "name", '", "arguments": ', "arguments", ', "id": "', "id", '"}'),
    separator=", ",
    end="]",
    id_length=9,
)
MISTRAL_SMALL = ToolFormat(
    trigger="[TOOL_CALLS]",
    begin="",
    call=("[TOOL_CALLS]", "name", "[CALL_ID]", "id", "[ARGS]", "arguments", ""),
    separator="",
    end="",
    id_length=9,
)
MINISTRAL = ToolFormat(
    trigger="[TOOL_CALLS]",
    begin="",
    call=("[TOOL_CALLS]", "name", "[ARGS]", "arguments", ""),
    separator="",
    end="",
)
KIMI = ToolFormat(
    trigger="<|tool_calls_section_begin|>",
    begin="<|tool_calls_section_begin|>",
    call=(
        "<|tool_call_begin|>functions.",
        "name",
        ":",
        "index",
        "<|tool_call_argument_begin|>",
        "arguments",
        "<|tool_call_end|>",
    ),
    separator="",
    end="<|tool_calls_section_end|>",
)
COHERE = ToolFormat(
    trigger="<|START_ACTION|>",
    begin="<|START_ACTION|>[\n    ",
    call=(
        '{"tool_call_id": "',
        "index",
        '", "tool_name": "',
        "name",
        '", "parameters": ',
        "arguments",
        "}",
    ),
    separator=",\n    ",
    end="\n]<|END_ACTION|>",
)
COMMAND_R = ToolFormat(
    trigger="Action:",
    begin="Action:\n```json\n[\n    ",
    call=(
        '{\n        "tool_name": "',
        "name",
        '",\n        "parameters": ',
        "arguments",
        "\n    }",
    ),
    separator=",\n    ",
    end="\n]```",
)
APERTUS = ToolFormat(
    trigger="<|tools_prefix|>",
    begin="<|tools_prefix|>[",
    call=('{"', "name", '": ', "arguments", "}"),
    separator=", ",
    end="]<|tools_suffix|>",
)
DEEPSEEK = ToolFormat(
    trigger="<|tool_calls_begin|>",
    begin="<|tool_calls_begin|>",
    call=(
        "<|tool_call_begin|>function<|tool_sep|>",
        "name",
        "\n```json\n",
        "arguments",
        "\n```<|tool_call_end|>",
    ),
    separator="\n",
    end="<|tool_calls_end|>",
)
FUNCTIONARY = ToolFormat(
    trigger="<function=",
    begin="",
    call=("<function=", "name", ">", "arguments", "</function>"),
    separator="",
    end="",
)
LINES = ToolFormat(
    trigger="<tool_calls>",
    begin="<tool_calls>\n",
    call=HERMES.call,
    separator="\n",
    end="\n</tool_calls>",
)
NAME_LAST = ToolFormat(
    trigger="<call>",
    begin="<call>",
    call=('{"arguments": ', "arguments", ', "name": "', "name", '"}'),
    separator="</call>\n<call>",
    end="</call>",
)
DIALECTS = {
    name.lower(): value for name, value in list(globals().items()) if isinstance(value, ToolFormat)
}
STYLES = (JsonArguments, TaggedArguments, LiteralArguments)
