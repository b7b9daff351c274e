"""Thoughts come apart from the answer, whole and streamed, on every path that writes a chat."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from openai.lib.streaming._deltas import accumulate_delta

from handlers.api.http import Response, StreamResponse
from handlers.artifact.dialect import HERMES, Dialect, Thinking
from handlers.engine.params import FinishReason, Logprobs, Step
from handlers.grammar.constraint import GrammarConstraint
from handlers.grammar.thinking import ThinkingConstraint
from tests.api.client import TEMPLATE, TOKENIZER, Client
from tests.support.scripted_engine import ScriptedEngine, drain, steps

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
GENERATE = "/generate"
USER: dict[str, Any] = {"messages": [{"role": "user", "content": "Why?"}]}
ASKED: dict[str, dict[str, Any]] = {
    CHAT: USER,
    RESPONSES: {"input": "Why?"},
    GENERATE: {"prompt": "Why?"},
}
THINKING = Thinking(begin="<think>\n", end="\n</think>\n\n", member="reasoning_content")
DIALECT = Dialect(thinking=THINKING)
THOUGHT = "<think>\nHm, why.\n</think>\n\nBecause."
OPEN = TEMPLATE + "<think>\n"
"""A template whose prompt ends within the thoughts."""
NOW = {"type": "function", "function": {"name": "now"}}
CALL = HERMES.write([("now", {})])


def thinking(*texts: str, template: str = TEMPLATE, end: FinishReason = FinishReason.EOS) -> Client:
    """A model that thinks, whose choices say these texts."""
    scripts = [steps(TOKENIZER.encode(text), end) for text in texts]
    engine = ScriptedEngine(scripts=scripts, context_length=4096)
    return Client(engine, template=template, dialect=DIALECT)


def tokens(text: str) -> int:
    return len(TOKENIZER.encode(text))


def deltas(events: list[Any]) -> list[dict[str, Any]]:
    """The deltas of a chat's chunks, of its first choice."""
    chunks = [event for event in events if event != "[DONE]"]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return [choice["delta"] for choice in choices if choice["index"] == 0]


def joined(events: list[Any]) -> dict[str, Any]:
    """The message, put together by the function that OpenAI's client uses."""
    message: dict[object, object] = {}
    for delta in deltas(events):
        message = accumulate_delta(message, delta)  # type: ignore[arg-type]
    return dict(message)  # type: ignore[arg-type]


def test_a_chats_thoughts_have_two_names() -> None:
    body = thinking(THOUGHT).json("POST", CHAT, USER)

    (choice,) = body["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": "Because.",
        "refusal": None,
        "reasoning_content": "Hm, why.",
        "reasoning": "Hm, why.",
    }
    assert choice["finish_reason"] == "stop"
    assert body["usage"]["completion_tokens"] == tokens(THOUGHT)
    counted = body["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert tokens("Hm, why.") <= counted < tokens(THOUGHT)


def test_a_streams_thoughts_come_before_its_text_and_never_beside_it() -> None:
    events = thinking(THOUGHT).events(CHAT, USER)

    first, *rest = deltas(events)
    assert first == {"role": "assistant", "content": ""}
    names = [tuple(delta) for delta in rest]
    assert set(names) == {("reasoning_content", "reasoning"), ("content",), ()}
    assert names == sorted(names, key=[("reasoning_content", "reasoning"), ("content",), ()].index)
    assert all(delta["reasoning"] == delta["reasoning_content"] for delta in rest if len(delta) > 1)
    assert joined(events) == {
        "role": "assistant",
        "content": "Because.",
        "reasoning_content": "Hm, why.",
        "reasoning": "Hm, why.",
    }


def test_each_choice_has_its_own_thoughts() -> None:
    texts = (THOUGHT, "Because.", "<think>\nOh.\n</think>\n\nNo.")
    body = thinking(*texts).json("POST", CHAT, USER | {"n": 3})

    found = [
        (choice["message"].get("reasoning"), choice["message"]["content"])
        for choice in body["choices"]
    ]
    assert found == [("Hm, why.", "Because."), (None, "Because."), ("Oh.", "No.")]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_without_thoughts_has_no_member_for_them(stream: bool) -> None:
    client = thinking("Because.")

    if stream:
        assert all(
            not delta.keys() - {"role", "content"} for delta in deltas(client.events(CHAT, USER))
        )
    else:
        message = client.json("POST", CHAT, USER)["choices"][0]["message"]
        assert message == {"role": "assistant", "content": "Because.", "refusal": None}


def test_a_prompt_that_ends_within_thoughts_begins_with_them() -> None:
    body = thinking("Hm, why.\n</think>\n\nBecause.", template=OPEN).json("POST", CHAT, USER)

    message = body["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("Hm, why.", "Because.")


@pytest.mark.parametrize("path", ASKED)
def test_an_answer_that_is_cut_within_its_thoughts_has_no_text(path: str) -> None:
    client = thinking("Hm, wh", template=OPEN, end=FinishReason.LENGTH)
    body = client.json("POST", path, ASKED[path])

    if path == CHAT:
        (choice,) = body["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("", "length")
        assert choice["message"]["reasoning"] == "Hm, wh"
    elif path == RESPONSES:
        (item,) = body["output"]
        assert (item["type"], item["status"]) == ("reasoning", "incomplete")
        assert item["content"] == [{"type": "reasoning_text", "text": "Hm, wh"}]
        assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    else:
        assert (body["response"], body["finish_reason"]) == ("", "length")
        assert body["thinking"] == "Hm, wh"


def test_generate_has_ollamas_name_for_thoughts() -> None:
    body = thinking(THOUGHT).json("POST", GENERATE, {"prompt": "Why?"})

    assert (body["thinking"], body["response"]) == ("Hm, why.", "Because.")
    assert "thinking" not in thinking("Because.").json("POST", GENERATE, {"prompt": "Why?"})


def test_a_response_has_an_item_of_thoughts() -> None:
    body = thinking(THOUGHT).json("POST", RESPONSES, ASKED[RESPONSES])

    thoughts, message = body["output"]
    assert thoughts.pop("id").startswith("rs_")
    assert thoughts == {
        "type": "reasoning",
        "status": "completed",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "Hm, why."}],
    }
    assert message["content"][0]["text"] == "Because."
    assert body["status"] == "completed"
    assert body["usage"]["output_tokens_details"]["reasoning_tokens"] >= tokens("Hm, why.")


def test_a_streamed_response_has_openais_events() -> None:
    answer = thinking(THOUGHT).send("POST", RESPONSES, ASKED[RESPONSES] | {"stream": True})
    events = response_events(answer)

    kinds = [event["type"].removeprefix("response.") for event in events]
    once = [kind for index, kind in enumerate(kinds) if kinds[index - 1 : index] != [kind]]
    assert once == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event["sequence_number"] for event in events] == [*range(len(events))]
    of_thoughts = [event for event in events if event.get("output_index") == 0]
    added, part, *grown, done, part_done, item_done = of_thoughts
    identity = added["item"]["id"]
    assert added["item"]["content"] == added["item"]["summary"] == []
    assert part["part"] == {"type": "reasoning_text", "text": ""}
    assert "".join(event["delta"] for event in grown) == done["text"] == "Hm, why."
    assert part_done["part"] == {"type": "reasoning_text", "text": "Hm, why."}
    assert item_done["item"] == events[-1]["response"]["output"][0]
    assert {event["item_id"] for event in (part, *grown, done, part_done)} == {identity}
    assert {event["content_index"] for event in (part, *grown, done, part_done)} == {0}


def response_events(answer: Response | StreamResponse) -> list[Any]:
    assert isinstance(answer, StreamResponse)
    text = b"".join(drain(answer.chunks)).decode()
    return [
        msgspec.json.decode(event.partition("data: ")[2]) for event in text.split("\n\n") if event
    ]


def test_the_output_of_a_response_can_stand_in_the_next_input() -> None:
    first = thinking(THOUGHT).json("POST", RESPONSES, ASKED[RESPONSES])
    given = [
        {"role": "user", "content": "Why?"},
        *first["output"],
        {"role": "user", "content": "?"},
    ]

    assert thinking("So.").json("POST", RESPONSES, {"input": given})["status"] == "completed"


def test_a_finished_answer_of_thoughts_alone_has_an_empty_message() -> None:
    body = thinking("<think>\nHm.\n</think>\n\n").json("POST", RESPONSES, ASKED[RESPONSES])

    thoughts, message = body["output"]
    assert (thoughts["type"], message["type"]) == ("reasoning", "message")
    assert message["content"][0]["text"] == ""


def test_the_request_comes_back_with_a_response() -> None:
    wish = {"effort": "low", "summary": "auto", "max_tokens": 100}
    include = ["reasoning.encrypted_content"]
    given = ASKED[RESPONSES] | {"reasoning": wish, "include": include}

    assert thinking(THOUGHT).json("POST", RESPONSES, given)["reasoning"] == {
        "effort": "low",
        "summary": "auto",
    }


def test_logprobs_are_those_of_the_text_alone() -> None:
    ids = TOKENIZER.encode(THOUGHT)
    scored = [Step(one, logprobs=Logprobs(one, -1.0, ())) for one in ids]
    engine = ScriptedEngine([*scored, Step(None, FinishReason.EOS)])
    client = Client(engine, dialect=DIALECT)
    asked = USER | {"logprobs": True}

    (choice,) = client.json("POST", CHAT, asked)["choices"]
    events = client.events(CHAT, asked)

    content = choice["logprobs"]["content"]
    assert "".join(token["token"] for token in content) == "Because."
    chunks = [event["choices"][0] for event in events if event != "[DONE]"]
    streamed = [
        token for chunk in chunks if chunk["logprobs"] for token in chunk["logprobs"]["content"]
    ]
    assert streamed == content
    assert all(chunk["logprobs"] is None for chunk in chunks if "reasoning" in chunk["delta"])


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("fields", [{"include_reasoning": False}, {"reasoning": {"exclude": True}}])
def test_hidden_thoughts_are_counted_and_not_sent(path: str, fields: dict[str, Any]) -> None:
    body = thinking(THOUGHT).json("POST", path, ASKED[path] | fields)

    assert "Hm" not in str(body)
    assert "Because." in str(body)
    usage = body["usage"]
    details = usage.get("completion_tokens_details") or usage["output_tokens_details"]
    assert details["reasoning_tokens"] >= tokens("Hm, why.")


def test_a_stream_whose_thoughts_are_hidden_begins_all_the_same() -> None:
    events = thinking(THOUGHT).events(CHAT, USER | {"include_reasoning": False})

    assert joined(events) == {"role": "assistant", "content": "Because."}


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize("fields", [{"reasoning_format": "none"}, {"separate_reasoning": False}])
def test_thoughts_may_stay_in_the_text(path: str, fields: dict[str, Any]) -> None:
    body = thinking(THOUGHT).json("POST", path, ASKED[path] | fields)

    if path == CHAT:
        assert body["choices"][0]["message"] == {
            "role": "assistant",
            "content": THOUGHT,
            "refusal": None,
        }
    elif path == RESPONSES:
        (message,) = body["output"]
        assert message["content"][0]["text"] == THOUGHT
    else:
        assert body["response"] == THOUGHT


def test_completions_know_no_thoughts() -> None:
    body = thinking(THOUGHT).json("POST", "/v1/completions", {"prompt": "Why?"})

    assert body["choices"][0]["text"] == THOUGHT


@pytest.mark.parametrize("choice", ["auto", "required"])
@pytest.mark.parametrize("stream", [False, True])
def test_calls_come_after_thoughts(choice: str, stream: bool) -> None:
    client = thinking(f"<think>\nThe time.\n</think>\n\n{CALL}")
    asked = USER | {"tools": [NOW], "tool_choice": choice}

    message = (
        joined(client.events(CHAT, asked))
        if stream
        else client.json("POST", CHAT, asked)["choices"][0]["message"]
    )

    assert message["reasoning"] == message["reasoning_content"] == "The time."
    assert message.get("content") in ({"auto": ("", None), "required": (None,)}[choice])
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["now"]


def test_a_responses_call_comes_after_thoughts() -> None:
    client = thinking(f"<think>\nThe time.\n</think>\n\n{CALL}")
    tool = {"type": "function", "name": "now"}

    body = client.json("POST", RESPONSES, ASKED[RESPONSES] | {"tools": [tool]})

    assert [item["type"] for item in body["output"]] == ["reasoning", "function_call"]


def test_a_call_within_thoughts_is_a_thought() -> None:
    client = thinking(f"<think>\nPerhaps {CALL}\n</think>\n\nNo.")
    message = client.json("POST", CHAT, USER | {"tools": [NOW]})["choices"][0]["message"]

    assert (message["content"], message["reasoning"]) == ("No.", f"Perhaps {CALL}")
    assert "tool_calls" not in message


def test_a_stop_string_within_thoughts_stops_nothing() -> None:
    body = thinking(THOUGHT).json("POST", CHAT, USER | {"stop": "why"})

    message = body["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("Hm, why.", "Because.")


FORM = {"response_format": {"type": "json_object"}}


@pytest.mark.parametrize(
    ("fields", "template", "kind"),
    [
        ({}, TEMPLATE, None),
        ({"thinking_budget": 5}, TEMPLATE, ThinkingConstraint),
        ({"thinking_budget": -1}, TEMPLATE, None),
        (FORM, TEMPLATE, ThinkingConstraint),
        (FORM | {"thinking_token_budget": 5}, OPEN, ThinkingConstraint),
        (FORM | {"reasoning_format": "none"}, OPEN, ThinkingConstraint),
        (FORM | {"thinking_budget": 5}, OPEN + "</think>", GrammarConstraint),
        ({"thinking_budget": 5}, OPEN + "</think>", None),
        ({"tools": [NOW], "tool_choice": "required"}, OPEN, ThinkingConstraint),
    ],
)
@pytest.mark.parametrize("path", [CHAT])
def test_forms_and_budgets_wait_for_the_thoughts(
    path: str, fields: dict[str, Any], template: str, kind: type | None
) -> None:
    client = thinking("Hm.\n</think>\n\n{}", template=template)
    client.json("POST", path, ASKED[path] | fields)

    engine = client.model.engine
    assert isinstance(engine, ScriptedEngine)
    constraint = engine.prompts[0].constraint
    assert constraint is None if kind is None else type(constraint) is kind


@pytest.mark.parametrize("path", ASKED)
def test_a_model_that_does_not_think_ignores_a_budget(path: str) -> None:
    engine = ScriptedEngine(steps(TOKENIZER.encode("Because.")))
    Client(engine).json("POST", path, ASKED[path] | {"thinking_budget": 5})

    assert engine.prompts[0].constraint is None
