"""Chat templates of one model each, in short, that think and call tools in each style there is."""

from __future__ import annotations

_TURNS = """\
{%- if tools %}{{- '<|im_start|>system\\n' + (tools | tojson) + '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\\n' }}
    {%- if message.role == 'assistant' %}@THOUGHTS@
        {{- message.content }}
        {%- if message.tool_calls %}@CALLS@{% endif %}
    {%- else %}
        {{- message.content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}@BEGIN@{% endif %}
"""


def _template(calls: str = "", thoughts: str = "", begin: str = "") -> str:
    source = _TURNS.replace("@THOUGHTS@", thoughts).replace("@BEGIN@", begin)
    return source.replace("@CALLS@", calls)


# A call by tags, as Qwen 3.5 and Nemotron have it, which write no JSON for null, true and false.
TAGGED = _template(
    """
    {%- for call in message.tool_calls %}
        {{- '\\n<tool_call>\\n<function=' + call.function.name + '>\\n' }}
        {%- for key, value in call.function.arguments.items() %}
            {{- '<parameter=' + key + '>\\n' }}
            {{- value | tojson if value is mapping else value | string }}
            {{- '\\n</parameter>\\n' }}
        {%- endfor %}
        {{- '</function>\\n</tool_call>' }}
    {%- endfor %}""",
    """
    {{- '<think>\\n' + (message.reasoning_content or '') + '\\n</think>\\n\\n' }}""",
    """
    {{- '<think>\\n\\n</think>\\n\\n' if enable_thinking is defined and not enable_thinking
        else '<think>\\n' }}""",
)
# By keys and values, as GLM; the end of thoughts stands alone where there are none.
PAIRS = _template(
    """
    {%- for call in message.tool_calls %}
        {{- '<tool_call>' + call.function.name }}
        {%- for key, value in call.function.arguments.items() %}
            {{- '<arg_key>' + key + '</arg_key><arg_value>' }}
            {{- value if value is string else value | tojson }}{{- '</arg_value>' }}
        {%- endfor %}
        {{- '</tool_call>' }}
    {%- endfor %}""",
    """
    {{- '<think>' + message.reasoning_content if message.reasoning_content }}{{- '</think>' }}""",
    """
    {{- '</think>' if enable_thinking is defined and not enable_thinking else '<think>' }}""",
)
# With a mark for what is no string, as DeepSeek 3.2.
TYPED = _template(
    """
    {{- '\\n\\n<|DSML|calls>\\n' }}
    {%- for call in message.tool_calls %}
        {{- '<|DSML|invoke name="' + call.function.name + '">\\n' }}
        {%- for key, value in call.function.arguments.items() %}
            {{- '<|DSML|parameter name="' + key + '" string="' }}
            {{- 'true">' + value if value is string else 'false">' + (value | tojson) }}
            {{- '</|DSML|parameter>\\n' }}
        {%- endfor %}
        {{- '</|DSML|invoke>\\n' }}
    {%- endfor %}
    {{- '</|DSML|calls>' }}""",
    """
    {{- '<think>' + message.reasoning_content + '</think>' if thinking and
        message.reasoning_content else '</think>' }}""",
    """
    {{- '<think>' if thinking else '</think>' }}""",
)
# As XML, with strings in CDATA, as MiniCPM 5.
XML = _template(
    """
    {%- for call in message.tool_calls %}
        {{- '<function name="' + call.function.name + '">' }}
        {%- for key, value in call.function.arguments.items() %}
            {{- '<param name="' + key + '">' }}
            {{- '<![CDATA[' + value + ']]>' if value is string and
                ('<' in value or '&' in value or '\\n' in value) else value }}{{- '</param>' }}
        {%- endfor %}
        {{- '</function>' }}
    {%- endfor %}"""
)
# In Python, as LFM2.5, which does not escape quotes.
PYTHON = _template(
    """
    {{- '<|tool_call_start|>[' }}
    {%- for call in message.tool_calls %}
        {{- call.function.name + '(' }}
        {%- for key, value in call.function.arguments.items() %}
            {{- key + '=' }}{{- "'" + value + "'" if value is string else value }}
            {{- ', ' if not loop.last }}
        {%- endfor %}
        {{- ')' }}{{- ', ' if not loop.last }}
    {%- endfor %}
    {{- ']<|tool_call_end|>' }}""",
    """
    {{- '<think>' + message.thinking + '</think>' if message.thinking }}""",
)
# In Gemma 4's notation, with another token after calls than after text.
NOTATION = """\
{%- macro write(value) %}
    {%- if value is string %}{{- '<|"|>' + value + '<|"|>' }}
    {%- elif value is boolean %}{{- 'true' if value else 'false' }}
    {%- elif value is none %}{{- 'null' }}
    {%- elif value is mapping %}{{- '{' }}
        {%- for key in value %}
            {{- key + ':' }}{{- write(value[key]) }}{{- ',' if not loop.last }}
        {%- endfor %}{{- '}' }}
    {%- elif value is sequence %}{{- '[' }}
        {%- for item in value %}{{- write(item) }}{{- ',' if not loop.last }}{% endfor %}{{- ']' }}
    {%- else %}{{- value }}{% endif %}
{%- endmacro %}
""" + _template(
    """
    {%- for call in message.tool_calls %}
        {{- '<|tool_call>call:' + call.function.name }}
        {{- write(call.function.arguments) }}{{- '<tool_call|>' }}
    {%- endfor %}
    {{- '<|tool_response>' }}{% continue %}""",
    """
    {{- '<|channel>thought\\n' + message.reasoning + '\\n<channel|>' if message.reasoning }}""",
    """
    {{- '<|channel>thought\\n<channel|>' if not enable_thinking }}""",
)
# With ids before the arguments, and thoughts as parts of the content, as Mistral's newer models.
IDS = _template(
    """
    {%- for call in message.tool_calls %}
        {%- if call.id | length != 9 %}{{- raise_exception('An id has 9 characters.') }}{% endif %}
        {{- '[TOOL_CALLS]' + call.function.name + '[CALL_ID]' + call.id + '[ARGS]' }}
        {{- call.function.arguments | tojson }}
    {%- endfor %}"""
).replace(
    "        {{- message.content }}\n        {%- if message.tool_calls",
    """        {%- if message.content is string %}{{- message.content }}{% else %}
            {%- for part in message.content %}
                {{- '[THINK]' + part.thinking + '[/THINK]' if part.type == 'thinking' }}
                {{- part.text }}
            {%- endfor %}
        {%- endif %}
        {%- if message.tool_calls""",
)
# With the number of each call, as Kimi K2, which counts them in a list.
NUMBERS = "{%- set ids = namespace(list=[]) %}" + _template(
    """
    {{- '<|calls_begin|>' }}
    {%- for call in message.tool_calls %}
        {%- set _ = ids.list.append(call.id) %}
        {{- '<|call_begin|>functions.' + call.function.name + ':' + (loop.index0 | string) }}
        {{- '<|argument_begin|>' + (call.function.arguments | tojson) + '<|call_end|>' }}
    {%- endfor %}
    {{- '<|calls_end|>' }}"""
)
# With the name as a key, in a list, as Apertus.
KEYS = _template(
    """
    {{- '<|tools_prefix|>[' }}
    {%- for call in message.tool_calls %}
        {{- '{"' + call.function.name + '": ' + (call.function.arguments | tojson) + '}' }}
        {{- ', ' if not loop.last }}
    {%- endfor %}
    {{- ']<|tools_suffix|>' }}""",
)
# With text between marks, one call at a time, and arguments that it wants as text.
MARKED_TEXT = """\
{%- if tools %}{{- tools | tojson }}{% endif %}
{%- for message in messages %}
    {{- '<|start|>' + message.role }}
    {%- if message.thinking %}{{- '<|think|>' + message.thinking + '<|end|><|start|>' }}
        {{- message.role }}
    {%- endif %}
    {%- if message.tool_calls %}
        {{- '<|call|>' + message.tool_calls[0].function.name + '\\n' }}
        {{- message.tool_calls[0].function.arguments + '<|done|>' }}
    {%- else %}
        {{- '<|content|>' + message.content }}
    {%- endif %}
    {{- '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start|>assistant' }}{% endif %}
"""
# Every answer has the marks of thoughts, of two tokens each, and those of its text: Kimi K3.
FRAMED = """\
{%- for message in messages %}
    {{- '<|open|>' + message.role + '<|sep|>' }}
    {%- if message.role == 'assistant' %}
        {{- '<|open|>think<|sep|>' + (message.reasoning_content or '') + '<|close|>think<|sep|>' }}
        {{- '<|open|>response<|sep|>' + message.content + '<|close|>response<|sep|>' }}
    {%- else %}{{- message.content }}{% endif %}
    {{- '<|close|>' + message.role + '<|sep|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|open|>assistant<|sep|><|open|>think<|sep|>' }}{% endif %}
"""
# Calls that no field describes: a mark for each type, a tag named after the argument, a name twice.
_ARGUMENTS = "{%- for key, value in call.function.arguments.items() %}@{% endfor %}"
_CALL = (
    "{%- for call in message.tool_calls %}{{- '<call=' + call.function.name + '>' }}"
    "@</call>{% endfor %}"
)
BY_TYPE = _template(
    _CALL.replace(
        "@",
        _ARGUMENTS.replace(
            "@",
            """{{- '<arg name="' + key + '" type="' + ('string' if value is string else 'boolean' if
            value is boolean else 'number') + '">' }}
            {{- value if value is string else value | tojson }}{{- '</arg>' }}""",
        ),
    )
)
BY_KEY = _template(
    _CALL.replace(
        "@",
        _ARGUMENTS.replace(
            "@", "{{- '<' + key + '>' }}{{- value | string }}{{- '</' + key + '>' }}"
        ),
    )
)
NAME_TWICE = _template(
    "{%- for call in message.tool_calls %}{{- '<call to=' + call.function.name + '>' }}"
    "{{- {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}{% endfor %}"
)
# R1's distillates: a prompt begins the thoughts, and earlier answers are cut at their end.
CUT = _template(begin="{{- '<think>\\n' }}").replace(
    "        {{- message.content }}\n        {%-", "{{- message.content.split('</think>')[-1] }}{%-"
)
# A system message in which thinking is a word, and a switch of words.
EFFORT = """\
{{- '<|im_start|>system\\nReasoning: ' + (reasoning_effort or 'medium') + '<|im_end|>\\n' }}
""" + _template(
    thoughts="""
    {{- '<think>' + message.reasoning_content + '</think>' if message.reasoning_content }}""",
    begin="{{- '<think></think>' if reasoning_effort == 'none' else '<think>' }}",
)

KNOWN = {
    "tagged": TAGGED,
    "pairs": PAIRS,
    "typed": TYPED,
    "xml": XML,
    "python": PYTHON,
    "notation": NOTATION,
    "ids": IDS,
    "numbers": NUMBERS,
    "keys": KEYS,
    "marked text": MARKED_TEXT,
}
UNKNOWN = {"a mark by type": BY_TYPE, "a tag by key": BY_KEY, "a name twice": NAME_TWICE}
