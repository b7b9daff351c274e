"""POST /v1/messages and its count of tokens, read by the types of Anthropic's own client."""

from __future__ import annotations

import logging
import time
import typing
from typing import Any

import anthropic.types.beta.message_count_tokens_params as count_params
import anthropic.types.beta.message_create_params as create_params
import msgspec
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.shared.error_response import ErrorResponse
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from handlers import errors, log
from handlers.api import unsupported_fields
from handlers.api.endpoints import messages
from handlers.api.endpoints.messages_input import ContentBlock, InputMessage, input_messages
from handlers.api.http import Request, Response, StreamResponse, run_sync
from handlers.artifact.dialect import HERMES, Dialect, Thinking
from handlers.engine.params import FinishReason, Step
from handlers.errors import RequestError
from handlers.grammar.thinking import ThinkingConstraint
from tests.api import agent_requests
from tests.api.agent_requests import COUNT, MESSAGES, AgentRequest
from tests.api.client import TOKENIZER, Client, saying
from tests.support.random_answers import allowed_ids
from tests.support.scripted_engine import ScriptedEngine, drain, steps, subclasses
from tests.support.tool_dialects import LFM

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)

# Of a model that calls tools as Hermes and Qwen do.
TEMPLATE = (
    "{% if tools %}{# <tool_call> #}{% endif %}"
    "{% for message in messages %}<{{ message.role }}>"
    "{% if message.reasoning_content %}({{ message.reasoning_content }}){% endif %}"
    "{{ message.content }}{% for call in message.tool_calls %}"
    "[{{ call.function.name }} {{ call.function.arguments }}]"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
CALLS = (
    "I add.<tool_call>\n"
    '{"name": "add", "arguments": {"x": 1}}\n</tool_call>\n<tool_call>\n'
    '{"name": "add", "arguments": {}}\n</tool_call>'
)
ADD: dict[str, Any] = {
    "name": "add",
    "input_schema": {"type": "object", "properties": {"x": {"type": "integer"}}},
}
DIALECT = Dialect(
    tools=HERMES, thinking=Thinking(begin="<think>", end="</think>", member="reasoning_content")
)
BODY: dict[str, Any] = {
    "model": "any",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "Hello"}],
}


def client(engine: ScriptedEngine, **environ: str) -> Client:
    return Client(engine, environ, template=TEMPLATE, dialect=DIALECT)


def asked(engine: ScriptedEngine, **body: object) -> Any:
    """The body of an answer, which Anthropic's client can read."""
    answer = client(engine).json("POST", MESSAGES, BODY | body)
    Message.model_validate(answer)
    return answer


def events_of(engine: ScriptedEngine, **body: object) -> list[Any]:
    """The stream's events; each is named by its type, and Anthropic's client can read it."""
    answer = client(engine).send("POST", MESSAGES, BODY | {"stream": True} | body)
    assert isinstance(answer, StreamResponse), answer.body
    events = []
    for chunk in drain(answer.chunks):
        name, data, *rest = chunk.decode().split("\n")
        assert rest == ["", ""]
        events.append(msgspec.json.decode(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
        if events[-1]["type"] not in ("ping", "error"):
            EVENT.validate_python(events[-1])
    return events


KINDS = {
    "text": "text_delta",
    "thinking": "thinking_delta",
    "signature": "signature_delta",
    "partial_json": "input_json_delta",
}


def joined(events: list[Any]) -> Any:
    """The message that a client makes of a stream's events."""
    message: Any = {}
    for event in events:
        if event["type"] == "message_start":
            message = event["message"]
        elif event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"] | {"json": ""})
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            ((member, piece),) = [each for each in delta.items() if each[0] != "type"]
            assert delta["type"] == KINDS[member]
            block[member.removeprefix("partial_")] += piece
        elif event["type"] == "message_delta":
            message |= event["delta"] | {"usage": event["usage"]}
    for block in message["content"]:
        arguments = block.pop("json")
        if block["type"] == "tool_use" and arguments:
            block["input"] = msgspec.json.decode(arguments)
    return message


def without_ids(message: Any) -> Any:
    blocks = [{**block, "id": ""} for block in message["content"]]
    return message | {"id": "", "content": blocks}


def prompt_of(engine: ScriptedEngine) -> str:
    return TOKENIZER.decode(engine.prompt_ids)


def refusal(body: object, path: str = MESSAGES) -> tuple[int, str, str]:
    status, error = client(saying("yes")).error("POST", path, body)
    return status, error["type"], error["message"]


@pytest.mark.parametrize(
    ("path", "parameters"),
    [
        (MESSAGES, create_params.MessageCreateParamsStreaming),
        (COUNT, count_params.MessageCountTokensParams),
    ],
)
def test_every_parameter_is_taken_refused_or_ignored(path: str, parameters: type) -> None:
    body = messages.MessagesRequest if path == MESSAGES else messages.CountTokensRequest
    taken = set(body.__struct_fields__)
    refused = {*body.unsupported, *messages.IGNORED}
    lists = [taken, refused, set(unsupported_fields.IGNORED) - taken]

    for name in typing.get_type_hints(parameters):
        assert sum(name in one for one in lists) == 1, name


@pytest.mark.parametrize("given", agent_requests.REQUESTS, ids=str)
def test_what_agents_send_is_taken_and_becomes_this_prompt(given: AgentRequest) -> None:
    engine = saying("{}", context_length=4096)

    answer = client(engine).send(
        "POST", given.path, given.body, query={"beta": "true"}, headers=agent_requests.HEADERS
    )

    if isinstance(answer, StreamResponse):
        assert b"event: message_stop" in b"".join(drain(answer.chunks))
    assert answer.status == 200, answer.body if isinstance(answer, Response) else ""
    if given.path == MESSAGES:
        assert prompt_of(engine) == given.prompt


def test_the_answer_has_anthropics_shape() -> None:
    engine = saying("Grüße 🎉")

    body = asked(engine)

    assert body.pop("id").startswith("msg_")
    assert body == {
        "type": "message",
        "role": "assistant",
        "model": "Tiny",
        "content": [{"type": "text", "text": "Grüße 🎉"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": len(engine.prompt_ids),
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": len(TOKENIZER.encode("Grüße 🎉")),
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }


def test_the_events_of_a_text_come_in_anthropics_order() -> None:
    (token,) = TOKENIZER.encode("e")
    engine = ScriptedEngine(steps([token]))

    events = events_of(engine)

    assert [event["type"] for event in events] == [
        "message_start",
        "ping",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    begun = events[0]["message"]
    assert begun["content"] == []
    assert begun["stop_reason"] is None
    assert begun["usage"]["input_tokens"] == len(engine.prompt_ids)
    assert events[2]["content_block"] == {"type": "text", "text": ""}
    assert events[3] == {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "e"},
    }
    assert events[5]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}


def test_thoughts_are_a_block_before_the_text_and_its_calls() -> None:
    text = "<think>One\nand one.</think>" + CALLS

    body = asked(saying(text), tools=[ADD])

    assert [block["type"] for block in body["content"]] == [
        *("thinking", "text", "tool_use", "tool_use")
    ]
    assert body["content"][0] == {
        "type": "thinking",
        "thinking": "One\nand one.",
        "signature": "unsigned",
    }
    thinking_tokens = body["usage"]["output_tokens_details"]["thinking_tokens"]
    assert 0 < thinking_tokens < body["usage"]["output_tokens"]
    events = events_of(saying(text), tools=[ADD])
    assert without_ids(joined(events)) == without_ids(body)
    signed = [event.get("delta", {}).get("type") for event in events].index("signature_delta")
    assert events[signed + 1]["type"] == "content_block_stop"


def test_thoughts_that_were_cut_are_all_there_is() -> None:
    body = asked(ScriptedEngine(steps(TOKENIZER.encode("<think>One and"), FinishReason.LENGTH)))

    assert [block["type"] for block in body["content"]] == ["thinking"]
    assert body["content"][0]["thinking"] == "One and"
    assert body["stop_reason"] == "max_tokens"


def test_a_stop_sequence_ends_no_thoughts() -> None:
    body = asked(saying("<think>One END.</think>Two END."), stop_sequences=["END"])

    assert [block.get("thinking") for block in body["content"]] == ["One END.", None]
    assert body["content"][1]["text"] == "Two"
    assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", "END")


# Without the marks of thoughts and calls.
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<"), max_size=30))
def test_a_stream_joins_to_the_unstreamed_answer(text: str) -> None:
    whole = asked(saying(text))

    assert without_ids(joined(events_of(saying(text)))) == without_ids(whole)
    assert "".join(block["text"] for block in whole["content"]) == text


def test_an_answer_without_text_has_no_block() -> None:
    assert asked(saying(""))["content"] == []
    assert joined(events_of(saying("")))["content"] == []


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (FinishReason.EOS, "end_turn"),
        (FinishReason.LENGTH, "max_tokens"),
        (FinishReason.CONTEXT, "max_tokens"),
        (FinishReason.DEADLINE, "max_tokens"),
    ],
)
def test_the_reason_says_what_ended_the_answer(end: FinishReason, reason: str) -> None:
    def engine() -> ScriptedEngine:
        return ScriptedEngine(steps(TOKENIZER.encode("half an"), end))

    assert asked(engine())["stop_reason"] == reason
    assert joined(events_of(engine()))["stop_reason"] == reason


@pytest.mark.parametrize("field", ["stop_sequences", "stop"])
@pytest.mark.parametrize("stream", [False, True])
def test_the_stop_sequence_that_ended_the_answer_is_named(field: str, stream: bool) -> None:
    stops = {field: ["END", "</b>"]}
    text = "one </b> two END"

    body = joined(events_of(saying(text), **stops)) if stream else asked(saying(text), **stops)

    assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", "</b>")
    assert body["content"] == [{"type": "text", "text": "one "}]


def test_the_calls_are_blocks_after_the_text() -> None:
    body = asked(saying(CALLS), tools=[ADD])

    text, first, second = body["content"]
    assert text == {"type": "text", "text": "I add."}
    assert list(first) == ["type", "id", "name", "input"]
    assert (first["name"], first["input"], second["input"]) == ("add", {"x": 1}, {})
    assert first["id"] != second["id"]
    assert (body["stop_reason"], body["stop_sequence"]) == ("tool_use", None)


def test_streamed_calls_join_to_the_calls() -> None:
    events = events_of(saying(CALLS), tools=[ADD])

    assert without_ids(joined(events)) == without_ids(asked(saying(CALLS), tools=[ADD]))
    starts = [event for event in events if event["type"] == "content_block_start"]
    assert [each["content_block"].get("input") for each in starts] == [None, {}, {}]
    kinds = [event["type"] for event in events if event["type"].startswith("content_block_s")]
    assert kinds == ["content_block_start", "content_block_stop"] * 3


def test_text_that_comes_with_the_end_of_a_call_follows_it() -> None:
    said = '<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call> Done.'
    held_back = {"tools": [ADD], "stop_sequences": ["1}}\n</tool_call> Done?"]}

    call, text = joined(events_of(saying(said), **held_back))["content"]
    assert (call["name"], call["input"]) == ("add", {"x": 1})
    assert text["text"].strip() == "Done."


@pytest.mark.parametrize("tokens", range(1, 24))
def test_a_call_that_was_cut_is_no_call_to_run(tokens: int) -> None:
    ids = TOKENIZER.encode(CALLS.partition("\n</tool_call>")[0])[:-tokens]

    body = asked(ScriptedEngine(steps(ids, FinishReason.LENGTH)), tools=[ADD])

    assert body["stop_reason"] == "max_tokens"
    assert all(block.get("input", {}) in ({}, {"x": 1}) for block in body["content"])


@pytest.mark.parametrize("tokens", range(26, 34))
def test_text_of_a_call_that_was_cut_in_a_name_does_not_mix_with_its_arguments(
    tokens: int,
) -> None:
    text = "<|tool_call_start|>[add(x=1, another_name=2)]<|tool_call_end|>"
    *before, last = TOKENIZER.encode(text)[:tokens]
    script = [*steps(before, FinishReason.LENGTH)[:-1], Step(last, FinishReason.LENGTH)]
    served = Client(ScriptedEngine(script), template=TEMPLATE, dialect=Dialect(tools=LFM))

    body = served.json("POST", MESSAGES, BODY | {"tools": [ADD]})

    texts = [block["text"] for block in body["content"] if block["type"] == "text"]
    assert [one for one in texts if one not in text] == []
    function = {"type": "function", "name": "add", "parameters": ADD["input_schema"]}
    answer = served.json("POST", "/v1/responses", {"input": "Hello", "tools": [function]})
    calls = [item["name"] for item in answer["output"] if item["type"] == "function_call"]
    assert calls in ([], ["add"])


def test_a_stop_sequence_within_a_call_leaves_no_call_to_run() -> None:
    body = asked(saying(CALLS), tools=[ADD], stop_sequences=['"x"'])

    assert (body["stop_reason"], body["stop_sequence"]) == ("stop_sequence", '"x"')


@pytest.mark.parametrize(
    ("choice", "must_call", "parallel"),
    [
        (None, False, True),
        ({"type": "auto"}, False, True),
        ({"type": "auto", "disable_parallel_tool_use": True}, False, False),
        ({"type": "any"}, True, True),
        ({"type": "any", "disable_parallel_tool_use": True}, True, False),
        ({"type": "tool", "name": "add"}, True, False),
    ],
)
def test_the_choice_of_tools_holds_the_answer(
    choice: object, must_call: bool, parallel: bool
) -> None:
    engine = saying(CALLS)

    asked(engine, tools=[ADD], **({} if choice is None else {"tool_choice": choice}))

    constraint = engine.prompts[0].constraint
    assert constraint is not None
    (letter,) = TOKENIZER.encode("I")
    assert (letter in allowed_ids(constraint)) == (not must_call)
    call, again, _ = CALLS.removeprefix("I add.").partition("\n<tool_call>")
    for token_id in TOKENIZER.encode(call):
        constraint.accept(token_id)
    (line_break,) = TOKENIZER.encode(again[0])
    assert (line_break in allowed_ids(constraint)) == parallel


def test_no_tool_is_offered_where_none_may_be_called() -> None:
    engine = saying("No.")

    asked(engine, tools=[ADD], tool_choice={"type": "none"})

    assert engine.prompts[0].constraint is None


def test_tools_that_anthropic_describes_are_left_out_with_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_logged", {})
    tools = [
        {"type": "bash_20250124", "name": "bash"},
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
        {"type": "custom", **ADD},
    ]
    with caplog.at_level(logging.WARNING, logger="handlers"):
        for _ in range(2):
            asked(saying("yes"), tools=tools)

    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" are left out")[0] for line in lines] == [
        "Tools of the type 'bash_20250124'",
        "Tools of the type 'web_search_20250305'",
    ]
    status, kind, message = refusal(BODY | {"tools": tools[:1], "tool_choice": {"type": "any"}})
    assert (status, kind) == (400, "invalid_request_error")
    assert message == "tool_choice asks for a call, but there are no tools."


@pytest.mark.parametrize("place", ["output_config", "output_format"])
def test_a_format_holds_the_answer(place: str) -> None:
    engine = saying('{"a": 1}')
    given = {"type": "json_schema", "schema": {"type": "object", "properties": {"a": {}}}}
    options = {place: {"format": given} if place == "output_config" else given}

    asked(engine, **options)

    assert engine.prompts[0].constraint is not None
    status, _, message = refusal(BODY | options | {"guided_choice": ["a"]})
    field = "output_config.format" if place == "output_config" else "output_format"
    assert (status, message) == (400, f"guided_choice cannot go with {field}: send one of them.")


@pytest.mark.parametrize(
    ("options", "given"),
    [
        ({}, "-"),
        ({"thinking": {"type": "enabled", "budget_tokens": 20}}, "True"),
        ({"thinking": {"type": "enabled"}}, "True"),
        ({"thinking": {"type": "disabled"}}, "False"),
        ({"thinking": {"type": "adaptive", "display": "summarized"}}, "-"),
        ({"thinking": {"type": "enabled"}, "enable_thinking": False}, "False"),
        ({"chat_template_kwargs": {"enable_thinking": True}}, "True"),
    ],
)
def test_the_template_is_told_whether_to_think(options: dict[str, Any], given: str) -> None:
    engine = saying("yes")
    template = "{{ enable_thinking if enable_thinking is defined else '-' }}"

    Client(engine, template=template).json("POST", MESSAGES, BODY | options)

    assert prompt_of(engine) == given


def test_the_effort_goes_to_a_template_that_knows_one() -> None:
    thinking = Thinking(begin="<think>", end="</think>", effort="effort", on={"deep": True})
    template = "{{ effort }}{% if deep %} deep{% endif %}"
    for options, prompt in (
        ({"output_config": {"effort": "max"}}, "high"),
        ({"output_config": {"effort": "low"}, "thinking": {"type": "enabled"}}, "low deep"),
    ):
        engine = saying("yes")
        served = Client(engine, template=template, dialect=Dialect(thinking=thinking))
        served.json("POST", MESSAGES, BODY | options)
        assert prompt_of(engine) == prompt


def test_thoughts_end_with_their_budget_and_may_be_left_out() -> None:
    engine = saying("<think>One.</think>Two.")
    thinking = {"type": "enabled", "budget_tokens": 3, "display": "omitted"}

    body = asked(engine, thinking=thinking)

    assert isinstance(engine.prompts[0].constraint, ThinkingConstraint)
    assert body["content"] == [{"type": "text", "text": "Two."}]
    assert body["usage"]["output_tokens_details"]["thinking_tokens"] > 0


def test_a_prompt_is_computed_without_an_answer() -> None:
    engine = ScriptedEngine(steps([], FinishReason.LENGTH))

    body = asked(engine, max_tokens=0, thinking={"type": "enabled", "budget_tokens": 20})

    assert engine.params.max_tokens == 0
    assert (body["content"], body["stop_reason"]) == ([], "max_tokens")


def test_what_goes_wrong_before_the_first_token_is_an_http_status() -> None:
    engine = ScriptedEngine(steps([], FinishReason.FAULT))

    status, error = client(engine).error("POST", MESSAGES, BODY | {"stream": True})

    assert (status, error["type"]) == (500, "api_error")


def test_what_goes_wrong_later_is_the_last_event() -> None:
    engine = ScriptedEngine(steps(TOKENIZER.encode("half an"), FinishReason.FAULT))

    last = events_of(engine)[-1]

    assert last == {
        "type": "error",
        "error": {
            "type": "api_error",
            "message": "The server failed to answer. Its log has the reason.",
        },
        "request_id": None,
    }


TYPES = {
    "InvalidRequest": "invalid_request_error",
    "ContextLengthExceeded": "invalid_request_error",
    "GrammarTooComplex": "invalid_request_error",
    "InvalidApiKey": "authentication_error",
    "NotFound": "not_found_error",
    "MethodNotAllowed": "invalid_request_error",
    "RequestTimeout": "invalid_request_error",
    "RequestTooLarge": "request_too_large",
    "UnsupportedMediaType": "invalid_request_error",
    "ResponseTooLarge": "request_too_large",
    "Overloaded": "rate_limit_error",
    "EngineFault": "api_error",
    "NotReady": "overloaded_error",
    "DeadlineExceeded": "timeout_error",
}


@pytest.mark.parametrize("kind", [*subclasses(RequestError)], ids=lambda kind: kind.__name__)
def test_every_error_has_anthropics_shape_and_a_type_of_its_own(kind: type[RequestError]) -> None:
    more: dict[str, dict[str, Any]] = {
        "MethodNotAllowed": {"allowed": ("POST",)},
        "UnsupportedMediaType": {"accepted": ()},
    }
    raised = kind("It is so.", **more.get(kind.__name__, {}))

    answer = client(ScriptedEngine([], refusal=raised)).send("POST", MESSAGES, BODY)

    assert isinstance(answer, Response)
    body = msgspec.json.decode(answer.body)
    if kind.status != 413:  # documented, though the client does not list its type
        ErrorResponse.model_validate(body)
    assert answer.status == kind.status
    assert body["error"]["type"] == TYPES[kind.__name__]
    assert (body["error"]["message"] == "It is so.") == (kind is not errors.EngineFault)


def test_only_clients_of_anthropics_get_its_errors() -> None:
    def shape(path: str, **headers: str) -> list[str]:
        answer = client(saying("yes")).send("POST", path, {}, headers=headers)
        assert isinstance(answer, Response)
        return list(msgspec.json.decode(answer.body)["error"])

    openais, anthropics = ["message", "type", "param", "code"], ["type", "message"]
    assert shape("/v1/chat/completions") == openais
    assert shape("/v1/threads/thread_1/messages") == openais
    assert shape("/v1/messagesx") == openais
    for path in (MESSAGES, COUNT, "/messages", "/v1//v1/messages/", "/llm/v1/messages/batches"):
        assert shape(path) == anthropics
    assert shape("/v1/models/x", **{"anthropic-version": "2023-06-01"}) == anthropics


def test_an_answer_has_the_id_of_its_request() -> None:
    body = msgspec.json.encode(BODY)
    served = client(saying("yes")).api

    requests = [Request("POST", MESSAGES, {}, {}, each, id="req-1") for each in (body, b"{}")]
    taken, refused = (run_sync(served.handle(each)) for each in requests)

    assert (taken.status, refused.status) == (200, 400)
    assert taken.headers["request-id"] == refused.headers["request-id"] == "req-1"
    assert isinstance(refused, Response)
    assert msgspec.json.decode(refused.body)["request_id"] == "req-1"


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Bearer sesame"},
        {"x-api-key": "sesame"},
        {"x-api-key": "a gateway's", "authorization": "Bearer sesame"},
        {"x-api-key": "sesame", "authorization": "Bearer another"},
    ],
)
def test_the_key_is_taken_from_either_header(headers: dict[str, str]) -> None:
    served = client(saying("yes"), KINDLING_API_KEY="sesame")

    assert served.json("POST", MESSAGES, BODY, headers=headers)
    assert served.json("GET", "/v1/models", headers=headers)


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-api-key": ""}, {"x-api-key": "Bearer sesame"}, {"authorization": "Basic sesame"}],
)
def test_any_other_key_is_refused(headers: dict[str, str]) -> None:
    served = client(saying("yes"), KINDLING_API_KEY="sesame")

    status, error = served.error("POST", MESSAGES, BODY, headers=headers)

    assert (status, error["type"]) == (401, "authentication_error")
    assert error["message"].endswith("or as `x-api-key: <key>`.")


def user(*blocks: object) -> dict[str, Any]:
    return BODY | {"messages": [{"role": "user", "content": [*blocks]}]}


IMAGE = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            user({"type": "text", "text": "a"}, IMAGE),
            (
                "messages[0].content[1] is of type 'image', but this model reads text "
                "only: leave the image out, or say in a text block what is to be seen."
            ),
        ),
        (
            user({"type": "document", "source": {"type": "text", "data": "a"}}),
            (
                "messages[0].content[0] is of type 'document', but this model reads "
                "text only: send what the document says in a text block."
            ),
        ),
        (
            user({"type": "tool_result", "tool_use_id": "a", "content": [IMAGE]}),
            "messages[0].content[0].content[0] is of type 'image', but",
        ),
        (
            user({"type": "hologram"}),
            "messages[0].content[0] is of type 'hologram', which cannot be read here: leave it",
        ),
        (user({"type": "tool_use", "id": "a", "name": "b", "input": {}}), "messages[0].content[0]"),
        (user({"type": "tool_result"}), "messages[0].content[0].tool_use_id is required."),
        (
            user({"type": "tool_result", "tool_use_id": "a", "content": 5}),
            "messages[0].content[0].content must be a string or a list of blocks",
        ),
        (user({"type": "text"}), "messages[0].content[0].text is required."),
        (BODY | {"system": [IMAGE]}, "system[0] is of type 'image', but"),
        (
            BODY | {"messages": [{"role": "assistant", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0] is of type 'tool_result', which",
        ),
        (BODY | {"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role: Invalid enum"),
        (BODY | {"messages": []}, "messages is empty: send at least one message."),
        ({"messages": BODY["messages"]}, "max_tokens is required."),
        (BODY | {"max_tokens": -2}, "max_tokens: Expected `int` >= -1."),
        (BODY | {"tools": [{"input_schema": {}}]}, "tools[0].name is required."),
        (BODY | {"tools": [ADD, ADD]}, "tools[1].name: 'add' is the name of two tools."),
        (BODY | {"tool_choice": {"type": "tool"}}, "tool_choice.name is required."),
        (
            BODY | {"tools": [ADD], "tool_choice": {"type": "tool", "name": "b"}},
            "tool_choice names 'b', which is none of the tools.",
        ),
        (BODY | {"thinking": {"type": "enabled", "budget_tokens": 0}}, "thinking.budget_tokens: "),
        (BODY | {"thinking": {"type": "sometimes"}}, "thinking.type: Invalid enum value"),
        (
            BODY | {"thinking": {"type": "enabled", "budget_tokens": 50}},
            (
                "max_tokens of 50 must be greater than thinking.budget_tokens of 50: "
                "thoughts are a part of the answer."
            ),
        ),
        (
            BODY | {"mcp_servers": [{"type": "url", "url": "https://example.com"}]},
            (
                "mcp_servers is not supported by this server: connect to them in the "
                "client, and send their tools as tools."
            ),
        ),
        (
            BODY | {"thread": {"type": "create"}},
            (
                "thread is not supported by this server: nothing is stored here, so "
                "send the whole conversation as messages."
            ),
        ),
    ],
)
def test_a_refusal_names_the_place_and_says_what_to_do(body: object, message: str) -> None:
    status, kind, said = refusal(body)

    assert (status, kind) == (400, "invalid_request_error")
    assert said.startswith(message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
TYPE = st.sampled_from(
    [
        *("text", "tool_use", "tool_result", "thinking", "search_result", "compaction", "image"),
        *("tool_reference", "server_tool_use", "web_search_tool_result", "hologram", ""),
    ]
)
MEMBER = st.sampled_from([*ContentBlock.__struct_fields__[1:], "cache_control", "signature"])
BLOCKS = st.recursive(
    st.dictionaries(MEMBER, JSON, max_size=3),
    lambda inner: st.fixed_dictionaries({"content": st.lists(inner, max_size=2)}),
    max_leaves=4,
).flatmap(lambda block: TYPE.map(lambda kind: block | {"type": kind}))


@given(
    blocks=st.lists(BLOCKS, max_size=4),
    role=st.sampled_from(["user", "assistant", "system"]),
    system=st.none() | st.lists(BLOCKS, max_size=2),
)
def test_whatever_blocks_hold_is_answered_or_refused(
    blocks: list[Any], role: str, system: list[Any] | None
) -> None:
    body = BODY | {"messages": [{"role": role, "content": blocks}], "system": system}

    answer = client(saying("yes")).send("POST", MESSAGES, body)

    assert answer.status in {200, 400}


def test_blocks_within_blocks_without_end_are_refused() -> None:
    block: dict[str, Any] = {"type": "text", "text": "a"}
    for _ in range(400):
        block = {"type": "search_result", "content": [block]}

    status, _, message = refusal(user(block))

    assert (status, message) == (400, "The messages are nested too deeply.")


def test_the_texts_of_many_blocks_are_joined_in_time_in_proportion_to_them() -> None:
    blocks = [ContentBlock("text", text=text) for text in ["a", "b\n", "", *["c"] * 200_000]]
    begun = time.thread_time()

    (message,) = input_messages(None, [InputMessage("user", blocks)])

    assert message["content"] == "a\nb\n" + "\n".join(["c"] * 200_000)
    assert time.thread_time() - begun < 1


def test_a_begun_answer_may_be_empty_or_end_in_a_call() -> None:
    for content, prompt in (
        ("", "<user>Hi<assistant>"),
        ("It is ", "<user>Hi<assistant>It is "),
        (
            [{"type": "tool_use", "id": "a", "name": "add", "input": {}}],
            "<user>Hi<assistant>[add {}]<assistant>",
        ),
    ):
        engine = saying("yes")
        turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": content}]
        asked(engine, messages=turns)
        assert prompt_of(engine) == prompt


@pytest.mark.parametrize("given", agent_requests.REQUESTS, ids=str)
def test_the_tokens_of_a_prompt_are_counted_without_an_answer(given: AgentRequest) -> None:
    engine = saying("{}", context_length=4096)
    body = {name: value for name, value in given.body.items() if name != "max_tokens"}

    counted = client(engine).json("POST", COUNT, body)

    assert engine.prompts == []
    assert list(counted) == ["input_tokens"]
    if given.path == MESSAGES:
        assert counted["input_tokens"] == len(TOKENIZER.encode(given.prompt))


def test_a_prompt_beyond_the_context_is_refused_in_words_that_agents_know() -> None:
    """Claude Code makes a summary where the message has "prompt is too long"."""
    status, kind, message = refusal(user({"type": "text", "text": "a b c d " * 100}))

    assert (status, kind) == (400, "invalid_request_error")
    assert "prompt is too long" in message.lower()
