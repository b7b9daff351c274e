"""Conversations in any order, before templates that raise as the models' own do."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.artifact.dialect import HERMES, Dialect
from handlers.errors import InvalidRequest
from handlers.text.chat_template import ChatTemplate
from tests.support.tool_formats import MISTRAL

Message = dict[str, Any]

TURNS = "<{{ message.role }}>{{ message.content }}"
ALTERNATING = """{% if (message.role == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Conversation roles must alternate') }}{% endif %}"""
GEMMA_3 = f"""{{% if messages[0].role == 'system' %}}<system>{{{{ messages[0].content }}}}\
{{% set turns = messages[1:] %}}{{% else %}}{{% set turns = messages %}}{{% endif %}}\
{{% for message in turns %}}{ALTERNATING}{TURNS}{{% endfor %}}"""
TEMPLATES = {
    "any order": f"{{% for message in messages %}}{TURNS}{{% endfor %}}",
    "Qwen 3.5": f"""{{% for message in messages %}}\
{{% if message.role == 'system' and not loop.first %}}\
{{{{ raise_exception('System message must be at the beginning.') }}}}{{% endif %}}{TURNS}\
{{% endfor %}}{{% if messages | selectattr('role', 'equalto', 'user') | list | length == 0 %}}\
{{{{ raise_exception('No user query found in messages.') }}}}{{% endif %}}""",
    "Gemma 3": GEMMA_3,
    "Gemma 2": f"""{{% if messages[0].role == 'system' %}}\
{{{{ raise_exception('System role not supported') }}}}{{% endif %}}{GEMMA_3}""",
    "Llama 2": f"""{{% for message in messages[1:] %}}{{% if message.role == 'system' %}}\
{{{{ raise_exception('Unexpected system message') }}}}{{% endif %}}{{% endfor %}}{GEMMA_3}""",
    "Mistral": f"""{{#[TOOL_CALLS] tools#}}{{% set turns = namespace(count=0) %}}\
{{% for message in messages %}}{TURNS}{{% if message.role == 'tool' or message.tool_calls %}}\
{{% for call in message.tool_calls %}}{{% if call.id | length != 9 %}}\
{{{{ raise_exception('Tool call IDs should be alphanumeric strings with length 9!') }}}}\
{{% endif %}}[{{{{ call.id }}}}]{{% endfor %}}[{{{{ message.tool_call_id }}}}]\
{{% elif (message.role == 'user') != (turns.count % 2 == 0) %}}\
{{{{ raise_exception('Conversation roles must alternate') }}}}\
{{% else %}}{{% set turns.count = turns.count + 1 %}}{{% endif %}}{{% endfor %}}""",
}


def template_of(name: str) -> ChatTemplate:
    """The template, whose form of calls is Mistral's or none."""
    dialect = Dialect(tools=MISTRAL) if name == "Mistral" else None
    return ChatTemplate(TEMPLATES[name], {}, dialect=dialect)


SYSTEM, LATER = (
    {"role": "system", "content": "Be brief."},
    {"role": "system", "content": "CAPITALS"},
)
HI, HELLO = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}
WHY = {"role": "user", "content": "Why?"}
CALL = {"id": "a", "type": "function", "function": {"name": "now", "arguments": {}}}
CALLING = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "a", "content": "half past"}
ORDERS: list[list[Message]] = [
    [HI],
    [SYSTEM, HI],
    [SYSTEM],
    [SYSTEM, LATER, HI],
    [SYSTEM, HI, HELLO, LATER, WHY],
    [HI, LATER, WHY],
    [HI, HELLO, LATER, WHY],
    [HI, HELLO, WHY, LATER],
    [HI, WHY],
    [HI, HELLO, {"role": "assistant", "content": "Go on."}, WHY],
    [HELLO, HI],
    [SYSTEM, HELLO, HI],
    [HELLO],
    [SYSTEM, HI, CALLING, RESULT, WHY],
    [HI, CALLING, RESULT, RESULT, LATER, HELLO, WHY],
]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("messages", ORDERS)
def test_every_text_of_any_order_is_in_the_prompt_in_its_place(
    messages: list[Message], template: str
) -> None:
    prompt = template_of(template).prompt(messages)

    place = 0
    for message in messages:
        place = prompt.index(message["content"], place) + len(message["content"])


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("messages", ORDERS)
def test_an_order_that_the_template_takes_is_left_as_it_is(
    messages: list[Message], template: str
) -> None:
    compiled = template_of(template)
    try:
        as_it_is = compiled.render(messages)
    except InvalidRequest:
        return

    assert compiled.prompt(messages) == as_it_is


@pytest.mark.parametrize(
    ("template", "messages", "prompt"),
    [
        ("Qwen 3.5", [SYSTEM, LATER, HI], "<system>Be brief.\n\nCAPITALS<user>Hi"),
        (
            "Qwen 3.5",
            [SYSTEM, HI, HELLO, LATER, WHY],
            "<system>Be brief.<user>Hi<assistant>Hello.<user>CAPITALS\n\nWhy?",
        ),
        ("Gemma 3", [HI, WHY], "<user>Hi\n\nWhy?"),
        (
            "Gemma 3",
            [HI, HELLO, LATER, WHY],
            "<user>Hi<assistant>Hello.<user>CAPITALS\n\nWhy?",
        ),
        ("Gemma 2", [SYSTEM, HI, HELLO], "<user>Be brief.\n\nHi<assistant>Hello."),
        ("Gemma 2", [HELLO, HI], "<user><assistant>Hello.<user>Hi"),
        (
            "Mistral",
            [HI, CALLING, RESULT, WHY],
            "<user>Hi<assistant>[0e8b7be43][]<tool>half past[0e8b7be43]<assistant><user>Why?",
        ),
    ],
)
def test_the_mildest_form_that_a_template_takes_is_rendered(
    template: str, messages: list[Message], prompt: str
) -> None:
    assert template_of(template).prompt(messages) == prompt


@pytest.mark.parametrize("template", ["Qwen 3.5", "Gemma 3", "Gemma 2"])
def test_tools_reach_a_template_that_knows_none_and_has_an_order(template: str) -> None:
    tool = {"type": "function", "function": {"name": "the_time", "description": "Tells it."}}

    prompt = template_of(template).prompt([SYSTEM, HI], [tool])

    assert prompt.index("Be brief.") < prompt.index("the_time") < prompt.index("Hi", 50)


def test_what_no_form_mends_is_refused_with_the_templates_first_reason() -> None:
    template = ChatTemplate("{{ raise_exception(messages[0].content) }}", {})

    with pytest.raises(InvalidRequest, match=r"refuses these messages: Hi$"):
        template.prompt([HI, WHY])


@pytest.mark.parametrize(
    "template", ["{{ tools | tojson(indent=4) }}{#<tool_call>#}", "{{ messages[0].content }}"]
)
def test_tools_nested_too_deeply_for_the_template_are_the_requests_fault(template: str) -> None:
    schema: Any = {}
    for _ in range(100_000):
        schema = {"properties": schema}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]

    with pytest.raises(InvalidRequest, match="nested too deeply"):
        ChatTemplate(template, {}).prompt([HI], tools)


NAMED = """\
{% for message in messages %}{% if message.role == 'tool' %}\
{{ '[' + message.name + ': ' + message.content + ']' }}\
{% else %}{{ message.content }}{% endif %}{% endfor %}"""


@pytest.mark.parametrize(
    ("ids", "names"),
    [
        (("a", "b"), ("now", "then")),
        (("b", "a"), ("then", "now")),
        ((None, None), ("now", "then")),
        (("c", "d"), ("now", "then")),
    ],
)
def test_results_without_a_name_get_that_of_their_call(
    ids: tuple[str | None, str | None], names: tuple[str, str]
) -> None:
    """Gemma 4's template adds the name to a text."""
    calls = [
        {"id": each, "type": "function", "function": {"name": name, "arguments": {}}}
        for each, name in (("a", "now"), ("b", "then"))
    ]
    results = [
        {"role": "tool", "content": "six"} | ({"tool_call_id": each} if each else {})
        for each in ids
    ]
    template = ChatTemplate(NAMED, {}, dialect=Dialect(tools=HERMES))

    prompt = template.prompt([HI, {**CALLING, "tool_calls": calls}, *results])

    assert prompt == "Hi" + "".join(f"[{name}: six]" for name in names)
