"""The fields about thoughts of many servers become a few options, and the template's variables."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from handlers.api.endpoints.chat import ChatCompletionRequest
from handlers.api.endpoints.responses import ResponsesRequest
from handlers.api.thinking import ThinkingFields, ThinkingOptions
from handlers.artifact.dialect import Dialect, Thinking
from tests.api.client import TOKENIZER, Client, saying

TEMPLATE = """{% for message in messages %}<{{ message.role }}>\
{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}\
{{ message.content }}{% endfor %}\
<assistant>{% if effort %}({{ effort }}){% endif %}{% if thinking is true %}<think>\
{% elif thinking is false %}<think></think>{% endif %}"""
THINKING = Thinking(
    begin="<think>",
    end="</think>",
    on={"thinking": True},
    off={"thinking": False},
    effort="effort",
    member="reasoning_content",
)
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Why?"}]},
    "/v1/chat/completions/render": {"messages": [{"role": "user", "content": "Why?"}]},
    "/tokenize": {"messages": [{"role": "user", "content": "Why?"}]},
    "/v1/responses": {"input": "Why?"},
    "/generate": {"prompt": "Why?"},
}
NOTHING = ThinkingOptions()


def options(**fields: Any) -> ThinkingOptions:
    body = {"messages": [], **fields}
    return msgspec.convert(body, ChatCompletionRequest).thinking_options


def prompt(path: str, fields: dict[str, Any], thinking: Thinking | None = THINKING) -> str:
    """Returns what a request with these fields has for a prompt."""
    engine = saying("Because.")
    client = Client(engine, template=TEMPLATE, dialect=Dialect(thinking=thinking))
    answer = client.json("POST", path, ASKED[path] | fields)
    ids = {"/tokenize": "tokens", "/v1/chat/completions/render": "token_ids"}.get(path)
    return TOKENIZER.decode(answer[ids] if ids else engine.prompt_ids)


@pytest.mark.parametrize(
    ("fields", "enabled"),
    [
        ({}, None),
        ({"enable_thinking": True}, True),
        ({"enable_thinking": False}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, True),
        ({"reasoning_effort": "default"}, None),
        ({"reasoning": {"effort": "none"}}, False),
        ({"reasoning": {"effort": "high"}}, True),
        ({"reasoning": {"effort": None, "summary": "auto"}}, None),
        ({"reasoning": {"enabled": True}}, True),
        ({"reasoning": {"enabled": False}}, False),
        ({"reasoning": {"max_tokens": 100}}, True),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"thinking": {"type": "adaptive"}}, None),
        ({"think": True}, True),
        ({"think": False}, False),
        ({"think": "low"}, True),
        ({"think": "none"}, False),
        ({"thinking_budget": 100}, True),
        ({"thinking_budget": 0}, False),
        ({"thinking_token_budget": -1}, None),
        ({"enable_thinking": False, "reasoning_effort": "high"}, False),
        ({"enable_thinking": True, "thinking_budget": 0}, True),
        ({"reasoning_effort": "none", "thinking_budget": 100}, False),
        ({"thinking": {"type": "disabled"}, "reasoning": {"enabled": True}}, False),
        ({"chat_template_kwargs": None, "thinking": None, "reasoning": None}, None),
    ],
)
def test_whether_the_model_thinks(fields: dict[str, Any], enabled: bool | None) -> None:
    assert options(**fields).enabled is enabled


@pytest.mark.parametrize(
    ("fields", "budget"),
    [
        ({"thinking_budget": 5}, 5),
        ({"thinking_token_budget": 5}, 5),
        ({"thinking_budget_tokens": 5}, 5),
        ({"reasoning_budget_tokens": 5}, 5),
        ({"reasoning": {"max_tokens": 5}}, 5),
        ({"thinking": {"type": "enabled", "budget_tokens": 5}}, 5),
        ({"thinking_budget": 0}, 0),
        ({"thinking_budget": -1}, None),
        ({"thinking_budget": None, "reasoning_budget_tokens": 7}, 7),
        ({}, None),
    ],
)
def test_how_long_it_thinks(fields: dict[str, Any], budget: int | None) -> None:
    assert options(**fields).budget == budget


@pytest.mark.parametrize(
    ("fields", "display"),
    [
        ({"include_reasoning": False}, "hidden"),
        ({"reasoning": {"exclude": True}}, "hidden"),
        ({"reasoning_format": "none"}, "inline"),
        ({"separate_reasoning": False}, "inline"),
        ({"include_reasoning": True, "reasoning": {"exclude": False}}, "apart"),
        ({"reasoning_format": "auto", "separate_reasoning": True}, "apart"),
        ({"reasoning_format": "deepseek"}, "apart"),
        ({"reasoning_format": "none", "include_reasoning": False}, "hidden"),
    ],
)
def test_where_the_thoughts_go(fields: dict[str, Any], display: str) -> None:
    assert options(**fields).display == display


@pytest.mark.parametrize(
    ("effort", "word"),
    [
        ("minimal", "low"),
        ("low", "low"),
        ("medium", "medium"),
        ("high", "high"),
        ("xhigh", "high"),
        ("max", "high"),
        ("ultra", "high"),
        ("none", None),
        ("default", None),
        (None, None),
    ],
)
def test_an_effort_is_a_word_that_templates_know(effort: str | None, word: str | None) -> None:
    for fields in ({"reasoning_effort": effort}, {"reasoning": {"effort": effort}}):
        assert options(**fields).effort == word
    assert options(think=effort).effort == word


@pytest.mark.parametrize("body", [ChatCompletionRequest, ResponsesRequest])
def test_other_bodies_read_the_same_fields(body: type[ThinkingFields]) -> None:
    fields = {"reasoning": {"effort": "low", "max_tokens": 9}, "messages": [], "input": "Hi"}

    assert msgspec.convert(fields, body).thinking_options == ThinkingOptions(True, "low", 9)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("thinking_budget", -2),
        ("thinking_token_budget", "many"),
        ("reasoning", "high"),
        ("reasoning_format", "deepseek-legacy"),
        ("enable_thinking", "yes"),
        ("thinking", True),
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/generate"])
def test_a_value_of_another_type_is_refused_by_its_name(
    path: str, field: str, value: object
) -> None:
    status, error = Client(saying("")).error("POST", path, {**ASKED[path], field: value})

    assert (status, error["param"]) == (400, field)


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, ""),
        ({"enable_thinking": True}, "<think>"),
        ({"enable_thinking": False}, "<think></think>"),
        ({"reasoning_effort": "none"}, "<think></think>"),
        ({"reasoning_effort": "low"}, "(low)<think>"),
        ({"reasoning": {"effort": "xhigh"}}, "(high)<think>"),
        ({"reasoning": {"enabled": False}}, "<think></think>"),
        ({"thinking": {"type": "disabled"}}, "<think></think>"),
        ({"thinking": {"type": "enabled", "budget_tokens": 9}}, "<think>"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, "<think></think>"),
        ({"chat_template_kwargs": {"reasoning_effort": "medium"}}, "(medium)<think>"),
        ({"chat_template_kwargs": {"reasoning_effort": "none"}}, "<think></think>"),
        (
            {"enable_thinking": True, "chat_template_kwargs": {"enable_thinking": False}},
            "<think></think>",
        ),
        ({"enable_thinking": True, "chat_template_kwargs": {"thinking": False}}, "<think></think>"),
        ({"reasoning_effort": "high", "chat_template_kwargs": {"effort": "tiny"}}, "(tiny)<think>"),
    ],
)
def test_the_template_is_told_by_its_own_variables(
    path: str, fields: dict[str, Any], end: str
) -> None:
    assert prompt(path, fields) == f"<user>Why?<assistant>{end}"


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("thinking", [None, Thinking(begin="<think>", end="</think>")])
@pytest.mark.parametrize(
    "fields", [{"enable_thinking": False}, {"reasoning_effort": "high"}, {"thinking": {}}]
)
def test_a_template_without_a_switch_ignores_them(
    path: str, thinking: Thinking | None, fields: dict[str, Any]
) -> None:
    assert prompt(path, fields, thinking) == "<user>Why?<assistant>"


PATHS_OF_FIELDS = ["/v1/chat/completions", "/v1/responses", "/generate"]


@pytest.mark.parametrize("path", PATHS_OF_FIELDS)
@pytest.mark.parametrize(
    "fields", [{"think": False}, {"thinking_budget": 0}, {"thinking_token_budget": 0}]
)
def test_the_other_fields_turn_thinking_off_too(path: str, fields: dict[str, Any]) -> None:
    assert prompt(path, fields) == "<user>Why?<assistant><think></think>"


@pytest.mark.parametrize(
    "fields",
    [{"enable_thinking": False}, {"thinking_budget": 5}, {"include_reasoning": False}],
)
def test_a_text_that_is_completed_has_no_thoughts(fields: dict[str, Any]) -> None:
    status, error = Client(saying("")).error("POST", "/v1/completions", {"prompt": "a", **fields})

    assert (status, error["param"]) == (400, *fields)


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(
    "fields", [{"reasoning": {"max_tokens": 0.0}}, {"thinking": {"budget_tokens": 0.0}}]
)
def test_a_budget_without_a_fraction_is_an_integer(path: str, fields: dict[str, Any]) -> None:
    """Also within an object, and a number with one is refused by its path."""
    whole = {name: dict.fromkeys(value, 0) for name, value in fields.items()}
    assert prompt(path, fields) == prompt(path, whole)
    broken = {name: dict.fromkeys(value, 0.5) for name, value in fields.items()}
    status, error = Client(saying("Because.")).error("POST", path, ASKED[path] | broken)
    ((name, value),) = broken.items()
    assert (status, error["message"].startswith(f"{name}.{next(iter(value))}: ")) == (400, True)
