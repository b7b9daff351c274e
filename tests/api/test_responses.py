from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response as OpenAIResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from handlers import log
from handlers.api.http import Response, StreamResponse
from handlers.engine.params import FinishReason
from tests.api.client import TOKENIZER, Client, saying
from tests.support.random_answers import allows_id
from tests.support.scripted_engine import ScriptedEngine, drain, steps

PATH = "/v1/responses"
COUNT = "/v1/responses/input_tokens"
EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

# Of a model that calls tools as Hermes and Qwen do.
TEMPLATE = (
    "{% if tools %}<tool_call>{% endif %}"
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}"
    "{% for call in message.tool_calls %}[{{ call.function.name }} {{ call.function.arguments }}]"
    "{% endfor %}{% endfor %}<assistant>"
)
CALLS = (
    "I add.<tool_call>\n"
    '{"name": "add", "arguments": {"x": 1}}\n</tool_call>\n<tool_call>\n'
    '{"name": "add", "arguments": {}}\n</tool_call>'
)
ADD: dict[str, Any] = {
    "type": "function",
    "name": "add",
    "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
}


def events_of(engine: ScriptedEngine, **body: object) -> list[Any]:
    """The stream's events; each is named by its type, and the client can read it."""
    answer = Client(engine, template=TEMPLATE).send(
        "POST", PATH, {"input": "Hello", "stream": True, **body}
    )
    assert isinstance(answer, StreamResponse), answer.body
    events = []
    for chunk in drain(answer.chunks):
        name, data, *rest = chunk.decode().split("\n")
        assert rest == ["", ""]
        events.append(msgspec.json.decode(data.removeprefix("data: ")))
        assert name == f"event: {events[-1]['type']}"
        EVENT.validate_python(events[-1])
    return events


def without_ids(body: Any) -> Any:
    """The body without what differs from answer to answer."""
    return [
        {name: value for name, value in item.items() if name != "id"} for item in body["output"]
    ], {name: value for name, value in body.items() if name not in ("id", "created_at", "output")}


def test_a_form_comes_back_as_openais_client_knows_it() -> None:
    for form in ({"type": "text"}, {"type": "json_object"}):
        body = Client(saying("{}")).json("POST", PATH, {"input": "Hi", "text": {"format": form}})
        assert body["text"] == {"format": form}


@pytest.mark.parametrize("mode", ["auto", "required"])
def test_allowed_tools_are_held_to_and_come_back(mode: str) -> None:
    engine = saying(CALLS)
    choice = {
        "type": "allowed_tools",
        "mode": mode,
        "tools": [{"type": "function", "name": "add"}],
    }
    tools = [ADD, ADD | {"name": "subtract"}]

    body = Client(engine, template=TEMPLATE).json(
        "POST", PATH, {"input": "Hi", "tools": tools, "tool_choice": choice}
    )

    assert OpenAIResponse.model_validate(body).tool_choice
    assert body["tool_choice"] == choice
    constraint = engine.prompts[0].constraint
    assert constraint is not None
    for token_id in TOKENIZER.encode('<tool_call>\n{"name": "'):
        constraint.accept(token_id)
    first = {name: TOKENIZER.encode(name[0])[0] for name in ("add", "subtract")}
    may_follow = {name: allows_id(constraint, i) for name, i in first.items()}
    assert may_follow == {"add": True, "subtract": False}


def prompt_of(engine: ScriptedEngine) -> str:
    return TOKENIZER.decode(engine.prompt_ids)


def test_the_answer_has_openais_shape() -> None:
    engine = saying("Grüße 🎉")

    body = Client(engine).json("POST", PATH, {"input": "Hello", "max_output_tokens": 50})

    response = OpenAIResponse.model_validate(body)
    assert response.output_text == "Grüße 🎉"
    assert (response.status, response.error, response.incomplete_details) == (
        "completed",
        None,
        None,
    )
    assert response.id.startswith("resp_")
    assert response.model == "Tiny"
    assert response.max_output_tokens == 50
    assert body["store"] is False
    prompt, completion = len(engine.prompt_ids), len(TOKENIZER.encode("Grüße 🎉"))
    assert body["usage"] == {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": prompt + completion,
    }


@pytest.mark.parametrize(
    ("body", "prompt"),
    [
        ({"input": "Hello"}, "<user>Hello<assistant>"),
        (
            {"input": "Hello", "instructions": "Be brief."},
            "<system>Be brief.<user>Hello<assistant>",
        ),
        (
            {
                "input": [
                    {
                        "type": "reasoning",
                        "id": "rs_1",
                        "summary": [{"type": "summary_text", "text": "No."}],
                        "content": [{"type": "reasoning_text", "text": "No."}],
                    },
                    {"role": "assistant", "content": [{"type": "refusal", "refusal": "I won't."}]},
                    {"role": "user", "content": "Why?"},
                ]
            },
            "<assistant>I won't.<user>Why?<assistant>",
        ),
        (
            {"input": [{"role": "developer", "content": "Be brief."}]},
            "<system>Be brief.<assistant>",
        ),
        (
            {
                "input": [
                    {"type": None, "role": "user", "content": "Hello"},
                    {"type": "web_search_call", "id": "ws_1", "action": {"type": "search"}},
                    {"type": "mcp_list_tools", "server_label": "a", "tools": []},
                    {"type": "custom_tool_call", "call_id": "a", "name": "patch", "input": "+ b"},
                    {
                        "type": "custom_tool_call_output",
                        "call_id": "a",
                        "output": [{"type": "input_text", "text": "done"}],
                    },
                ]
            },
            "<user>Hello<assistant>[patch {'input': '+ b'}]<tool>done<assistant>",
        ),
        (
            {
                "input": [
                    {"type": "message", "role": "user", "content": "Hello"},
                    {
                        "type": "message",
                        "id": "msg_1",
                        "status": "completed",
                        "role": "assistant",
                        "content": [{"type": "output_text", "text": "Hi", "annotations": []}],
                    },
                    {
                        "role": "user",
                        "content": [
                            {"type": "input_text", "text": "a"},
                            {"type": "input_text", "text": "b"},
                        ],
                    },
                ]
            },
            "<user>Hello<assistant>Hi<user>a\nb<assistant>",
        ),
        (
            {
                "input": [
                    {"role": "user", "content": "Add."},
                    {
                        "type": "function_call",
                        "call_id": "a",
                        "name": "add",
                        "arguments": '{"x": 1}',
                    },
                    {"type": "function_call", "call_id": "b", "name": "add", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "a", "output": "2"},
                ]
            },
            "<user>Add.<assistant>[add {'x': 1}][add {}]<tool>2<assistant>",
        ),
    ],
)
def test_the_input_becomes_the_prompt_of_the_template(body: Any, prompt: str) -> None:
    engine = saying("")

    Client(engine, template=TEMPLATE).json("POST", PATH, body)

    assert prompt_of(engine) == prompt


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        (FinishReason.EOS, "completed", None),
        (FinishReason.LENGTH, "incomplete", {"reason": "max_output_tokens"}),
        (FinishReason.CONTEXT, "incomplete", {"reason": "max_output_tokens"}),
    ],
)
def test_a_cut_answer_is_incomplete(end: FinishReason, status: str, reason: Any) -> None:
    engine = ScriptedEngine(steps(TOKENIZER.encode("half an"), end))

    body = Client(engine).json("POST", PATH, {"input": "Hello"})

    assert (body["status"], body["incomplete_details"]) == (status, reason)
    assert body["output"][0]["status"] == status
    assert events_of(engine)[-1]["type"] == f"response.{status}"


def test_the_events_of_a_text_come_in_openais_order() -> None:
    (token,) = TOKENIZER.encode("e")

    events = events_of(ScriptedEngine(steps([token])))

    assert [event["type"].removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    first, last = events[0]["response"], events[-1]["response"]
    assert (first["status"], first["output"], first["usage"]) == ("in_progress", [], None)
    assert first["id"] == last["id"]


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_a_stream_ends_with_the_unstreamed_answer(text: str) -> None:
    whole = Client(saying(text)).json("POST", PATH, {"input": "Hello"})

    events = events_of(saying(text))

    assert without_ids(events[-1]["response"]) == without_ids(whole)
    deltas = [event["delta"] for event in events if event["type"].endswith("text.delta")]
    assert "".join(deltas) == whole["output"][0]["content"][0]["text"] == text


def test_what_goes_wrong_before_the_first_token_is_an_http_status() -> None:
    engine = ScriptedEngine(steps([], FinishReason.FAULT))

    answer = Client(engine).send("POST", PATH, {"input": "Hello", "stream": True})

    assert isinstance(answer, Response)
    assert answer.status == 500


def test_what_goes_wrong_later_is_a_failed_response_with_the_text_so_far() -> None:
    engine = ScriptedEngine(steps(TOKENIZER.encode("half an"), FinishReason.FAULT))

    last = events_of(engine)[-1]

    assert last["type"] == "response.failed"
    assert last["response"]["status"] == "failed"
    assert last["response"]["error"]["code"] == "server_error"
    assert last["response"]["output"][0]["content"][0]["text"] == "half an"


def test_the_output_is_the_text_and_the_calls_in_their_order() -> None:
    body = Client(saying(CALLS), template=TEMPLATE).json(
        "POST", PATH, {"input": "Add.", "tools": [ADD]}
    )

    response = OpenAIResponse.model_validate(body)
    assert response.status == "completed"
    assert response.output_text == "I add."
    calls = [item for item in response.output if item.type == "function_call"]
    assert [(call.name, call.arguments) for call in calls] == [("add", '{"x": 1}'), ("add", "{}")]
    assert len({call.call_id for call in calls}) == 2
    assert body["tools"][0]["name"] == "add"


def test_the_events_of_calls_come_in_openais_order() -> None:
    events = events_of(saying(CALLS), tools=[ADD])

    names = [event["type"].removeprefix("response.") for event in events]
    once = [name for place, name in enumerate(names) if names[place - 1] != name]
    call = [
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    assert once == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.done", "content_part.done", "output_item.done"),
        *call,
        *call,
        "completed",
    ]
    done = [event for event in events if event["type"].endswith("arguments.done")]
    assert [(event["output_index"], event["arguments"]) for event in done] == [
        (1, '{"x": 1}'),
        (2, "{}"),
    ]
    assert [item["type"] for item in events[-1]["response"]["output"]] == [
        "message",
        "function_call",
        "function_call",
    ]


def test_text_that_comes_with_the_end_of_a_call_follows_it() -> None:
    said = '<tool_call>\n{"name": "add", "arguments": {"x": 1}}\n</tool_call> Done.'
    held_back = {"tools": [ADD], "stop": "1}}\n</tool_call> Done?"}

    events = events_of(saying(said), **held_back)

    call, message = events[-1]["response"]["output"]
    assert (call["arguments"], call["status"]) == ('{"x": 1}', "completed")
    assert message["content"][0]["text"].strip() == "Done."


def test_the_logprobs_of_a_call_make_no_message() -> None:
    engine = saying(CALLS.removeprefix("I add."))

    body = Client(engine, template=TEMPLATE).json(
        "POST", PATH, {"input": "Add.", "tools": [ADD], "include": ["message.output_text.logprobs"]}
    )

    assert [item["type"] for item in body["output"]] == ["function_call", "function_call"]


def test_what_the_template_refuses_is_the_inputs_fault() -> None:
    template = "{{ raise_exception('No.') }}"

    answer = Client(saying(""), template=template).error("POST", PATH, {"input": "Hello"})

    assert (answer[0], answer[1]["param"]) == (400, "input")


def test_a_call_cut_short_is_incomplete() -> None:
    engine = ScriptedEngine(
        steps(TOKENIZER.encode(CALLS[: CALLS.index("1}")]), FinishReason.LENGTH)
    )

    last = events_of(engine, tools=[ADD])[-1]

    assert last["type"] == "response.incomplete"
    assert [item["status"] for item in last["response"]["output"]] == ["completed", "incomplete"]


OTHERS: list[dict[str, Any]] = [
    {"type": "web_search"},
    {"type": "namespace", "name": "mcp", "description": "", "tools": [ADD | {"name": "inner"}]},
    {"type": "mcp", "server_label": "a", "server_url": "b", "require_approval": "never"},
    {"type": "image_generation", "size": "auto"},
    {"type": "file_search", "vector_store_ids": ["a"]},
    {"type": "computer_use_preview", "display_width": 5, "environment": "browser"},
    {"type": "local_shell"},
    {"type": "code_interpreter", "container": {"type": "auto"}},
]


@pytest.mark.parametrize(
    "choice",
    [
        "auto",
        "required",
        {"type": "function", "name": "add"},
        {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "web_search"}, ADD]},
    ],
)
def test_tools_of_other_types_are_left_out_beside_functions(choice: object) -> None:
    engines = [saying(CALLS.removeprefix("I add.")) for _ in range(2)]
    functions, all_ = (
        Client(engine, template=TEMPLATE).json(
            "POST", PATH, {"input": "Add.", "tools": tools, "tool_choice": choice}
        )
        for engine, tools in zip(engines, ([ADD], [*OTHERS, ADD]), strict=True)
    )

    assert engines[0].prompt_ids == engines[1].prompt_ids
    assert [item["type"] for item in all_["output"]] == ["function_call", "function_call"]
    assert [tool["name"] for tool in all_["tools"]] == ["add"]
    assert (
        OpenAIResponse.model_validate(all_).tools == OpenAIResponse.model_validate(functions).tools
    )


def test_tools_that_are_left_out_alone_leave_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    kind = "a type of this test's own"
    for _ in range(2):
        body = Client(saying("Hi")).json("POST", PATH, {"input": "a", "tools": [{"type": kind}]})
        assert (body["output"][0]["content"][0]["text"], body["tools"]) == ("Hi", [])

    assert [record.getMessage() for record in caplog.records].count(
        f"Tools of the type {kind!r} are left out: only functions are offered."
    ) == 1


def test_the_log_has_one_line_of_each_type_that_is_left_out_and_a_bounded_number_of_lines(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_logged", {})
    kinds = [{"type": f"{number}{'x' * 10_000}"} for number in range(128)]

    for _ in range(5):
        Client(saying("Hi")).json("POST", PATH, {"input": "a", "tools": kinds})

    lines = [each for each in caplog.messages if each.startswith("Tools of the type")]
    assert len(lines) == len(set(lines)) == log.MOST_LINES
    assert max(map(len, lines)) < 400


ITEM: dict[str, Any] = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "input"),
    ({"input": ""}, "input"),
    ({"input": []}, "input"),
    ({"input": 5}, "input"),
    ({"input": "null \0"}, "input"),
    ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
    (
        {"input": [{"role": "user", "content": "a"}, {"type": "item_reference", "id": "a"}]},
        "input[1]",
    ),
    ({"input": [{"id": "msg_1"}]}, "input[0]"),
    ({"input": [{"type": "compaction", "encrypted_content": "a"}]}, "input[0]"),
    ({"input": [{"type": "computer_call_output", "call_id": "a", "output": {"a": 1}}]}, "input[0]"),
    ({"input": [{"type": "local_shell_call", "call_id": "a", "action": {}}]}, "input[0]"),
    ({"input": [{"type": "no such type"}]}, "input[0]"),
    ({"input": [{"content": "Hello"}]}, "input[0].role"),
    ({"input": [{"role": "tool", "content": "Hello"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    (
        {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
        "input[0].content[0]",
    ),
    (
        {"input": [{"role": "user", "content": [{"type": "input_text"}]}]},
        "input[0].content[0].text",
    ),
    ({"input": [{**ITEM, "name": None}]}, "input[0].name"),
    ({"input": [{"type": "function_call_output", "output": "5"}]}, "input[0].call_id"),
    (
        {"input": [{"type": "function_call_output", "call_id": "a", "output": {"b": 1}}]},
        "input[0].output",
    ),
    (
        {
            "input": [
                {
                    "type": "function_call_output",
                    "call_id": "a",
                    "output": [{"type": "input_file", "file_id": "b"}],
                }
            ]
        },
        "input[0].output[0]",
    ),
    ({"input": "a", "previous_response_id": "resp_1"}, "previous_response_id"),
    ({"input": "a", "conversation": "conv_1"}, "conversation"),
    ({"input": "a", "background": True}, "background"),
    ({"input": "a", "prompt": {"id": "pmpt_1"}}, "prompt"),
    ({"input": "a", "truncation": "auto"}, "truncation"),
    ({"input": "a", "max_output_tokens": 0}, "max_output_tokens"),
    ({"input": "a", "temperature": 3}, "temperature"),
    ({"input": "a", "text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"input": "a", "text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ({"input": "a", "tools": [{"type": "web_search"}], "tool_choice": "required"}, "tools"),
    ({"input": "a", "tools": [{"type": "function"}]}, "tools[0].name"),
    ({"input": "a", "tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
    ({"input": "a", "tools": [ADD, ADD]}, "tools[1].name"),
    *(
        ({"input": "a", "tools": [ADD, {"type": "mcp"}], "tool_choice": choice}, param)
        for choice, param in (
            ({"type": "mcp", "server_label": "a"}, "tool_choice"),
            ({"type": "web_search"}, "tool_choice"),
            ({"type": "custom", "name": "add"}, "tool_choice"),
            ({"type": "function"}, "tool_choice.name"),
            ({"type": "allowed_tools", "mode": "auto"}, "tool_choice.tools"),
            ({"type": "allowed_tools", "tools": [ADD]}, "tool_choice.mode"),
            ({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "mcp"}]}, "tool_choice"),
        )
    ),
    (
        {"input": "a", "tools": [ADD], "tool_choice": {"type": "function", "name": "b"}},
        "tool_choice",
    ),
    ({"input": "a", "tool_choice": "required"}, "tools"),
    (
        {"input": "a", "text": {"format": {"type": "json_object"}}, "guided_regex": "a"},
        "guided_regex",
    ),
]


@pytest.mark.parametrize(("body", "param"), WRONG)
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_field_is_named(body: dict[str, Any], param: str, stream: bool) -> None:
    status, error = Client(saying("", context_length=1000)).error(
        "POST", PATH, {"stream": stream, **body}
    )

    assert (status, error["code"], error["param"]) == (400, "invalid_request_error", param)
    assert param in error["message"]


@pytest.mark.parametrize(
    "harmless",
    [
        {"store": True, "metadata": {"a": "b"}, "user": "me", "service_tier": "auto"},
        {"reasoning": {"effort": "low"}, "include": ["reasoning.encrypted_content"]},
        {"previous_response_id": None, "background": False, "truncation": "disabled"},
    ],
)
def test_what_changes_nothing_is_let_through(harmless: dict[str, Any]) -> None:
    body = Client(saying("yes")).json("POST", PATH, {"input": "Hello", **harmless})

    assert body["store"] is False
    assert body["metadata"] == harmless.get("metadata", {})


@pytest.mark.parametrize(
    "body", [{"input": "Hello"}, {"input": "Add.", "instructions": "Be brief.", "tools": [ADD]}]
)
def test_the_tokens_of_an_input_are_counted_without_an_answer(body: dict[str, Any]) -> None:
    engine = saying("", context_length=1000)
    Client(engine).json("POST", PATH, body)

    counted = Client(saying("", refusal=RuntimeError("It was asked."))).json("POST", COUNT, body)

    assert counted == {"object": "response.input_tokens", "input_tokens": len(engine.prompt_ids)}


def test_the_tokens_of_an_input_beyond_the_context_are_counted() -> None:
    counted = Client(saying("")).json("POST", COUNT, {"input": "a b c " * 100})

    assert counted["input_tokens"] > 256


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "input"), ({"input": "a", "previous_response_id": "b"}, "previous_response_id")],
)
def test_a_wrong_field_of_a_count_is_named(body: dict[str, Any], param: str) -> None:
    status, error = Client(saying("")).error("POST", COUNT, body)

    assert (status, error["param"]) == (400, param)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{PATH}/resp_1"),
        ("DELETE", f"{PATH}/resp_1"),
        ("POST", f"{PATH}/resp_1/cancel"),
        ("GET", f"{PATH}/resp_1/input_items"),
        ("POST", f"{PATH}/compact"),
        ("GET", "/v1/chat/completions/chatcmpl-1"),
        ("GET", "/v1/chat/completions/chatcmpl-1/messages"),
        ("POST", "/v1/conversations"),
        ("GET", "/v1/conversations/conv_1/items"),
    ],
)
def test_what_would_be_stored_is_not_found(method: str, path: str) -> None:
    status, error = Client(saying("")).error(method, path)

    assert (status, error["code"]) == (404, "not_found")
    assert "nothing is stored here" in error["message"]


@pytest.mark.parametrize("field", ["previous_response_id", "conversation"])
def test_what_would_have_to_be_stored_says_what_to_send(field: str) -> None:
    _, error = Client(saying("")).error("POST", PATH, {"input": "Hello", field: "resp_1"})

    assert "nothing is stored here, so send the whole conversation as input" in error["message"]


@pytest.mark.parametrize(
    ("item", "advice"),
    [
        ({"type": "item_reference", "id": "fc_1"}, "send the item itself"),
        ({"type": "computer_call", "id": "cu_1", "action": {}}, "leave the item out"),
        ({"role": "tool", "content": "5"}, "'function_call_output'"),
        ({"role": "user", "content": [{"type": "input_image"}]}, "text only: leave the image out"),
    ],
)
def test_an_item_that_is_not_read_says_what_to_do(item: dict[str, Any], advice: str) -> None:
    _, error = Client(saying("")).error("POST", PATH, {"input": [item]})

    assert advice in error["message"]


def test_an_input_beyond_the_context_is_refused() -> None:
    status, error = Client(saying("")).error("POST", PATH, {"input": "x" * 1_000_000})

    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "input")
