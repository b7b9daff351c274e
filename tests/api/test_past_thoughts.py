"""The thoughts of earlier answers go to the template, under whichever name a client sends them."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.artifact.dialect import HERMES, Dialect, Thinking
from tests.api.client import TOKENIZER, Client, saying

TEMPLATE = """{% for message in messages %}<{{ message.role }}>\
{% if message.reasoning_content %}<think>{{ message.reasoning_content }}</think>{% endif %}\
{{ message.content }}{% endfor %}<assistant>"""
THINKING = Thinking(begin="<think>", end="</think>", member="reasoning_content")
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
USER = {"role": "user", "content": "Why?"}
AGAIN = {"role": "user", "content": "And?"}


def prompt(path: str, **body: Any) -> str:
    """Returns the prompt that the engine gets."""
    engine = saying("Because.", context_length=1024)
    client = Client(engine, template=TEMPLATE, dialect=Dialect(thinking=THINKING))
    client.json("POST", path, body)
    return TOKENIZER.decode(engine.prompt_ids)


def of_chat(**assistant: Any) -> str:
    """Returns how the template writes one message of the assistant."""
    message = {"role": "assistant", "content": "So.", **assistant}
    written = prompt(CHAT, messages=[USER, message, AGAIN])
    start, end = "<user>Why?<assistant>", "<user>And?<assistant>"
    assert (written[: len(start)], written[-len(end) :]) == (start, end)
    return written[len(start) : -len(end)]


def part(kind: str, **members: Any) -> dict[str, Any]:
    return {"type": kind, **members}


SO = part("text", text="So.")


@pytest.mark.parametrize(
    "assistant",
    [
        {"reasoning_content": "Hm."},
        {"reasoning": "Hm."},
        {"thinking": "Hm."},
        {"reasoning_content": "Hm.", "reasoning": "Hm."},
        {"reasoning_content": None, "reasoning": "Hm."},
        {"reasoning_content": "", "thinking": "Hm."},
        {"reasoning": {"text": "no string"}, "thinking": "Hm."},
        {"content": [part("thinking", thinking="Hm.", signature="x"), SO]},
        {"content": [part("thinking", thinking=[part("text", text="Hm.")]), SO]},
        {"content": [part("reasoning", text="Hm."), SO]},
        {"content": [part("reasoning", reasoning="Hm."), SO]},
        {"content": [part("reasoning_text", text="Hm."), SO]},
        {"content": [part("redacted_thinking", data="AAAA"), part("thinking", thinking="Hm."), SO]},
        {"content": [part("thinking", thinking="No."), SO], "reasoning_content": "Hm."},
    ],
)
def test_a_chats_thoughts_are_given_to_the_template(assistant: dict[str, Any]) -> None:
    assert of_chat(**assistant) == "<think>Hm.</think>So."


@pytest.mark.parametrize(
    "assistant",
    [
        {},
        {"reasoning_content": None, "reasoning": None, "thinking": None},
        {"reasoning": [{"type": "reasoning.text", "text": "Hm."}]},
        {"reasoning_details": [{"type": "reasoning.text", "text": "Hm."}]},
        {"content": [part("redacted_thinking", data="AAAA"), SO]},
        {"content": [part("thinking", thinking={"of": "no kind"}), SO]},
        {"content": [part("thinking", thinking=[None, 5, part("reference")]), SO]},
    ],
)
def test_what_is_no_text_is_no_thought(assistant: dict[str, Any]) -> None:
    assert of_chat(**assistant) == "So."


def test_two_parts_are_joined_by_a_line_break() -> None:
    parts = [part("thinking", thinking="Hm."), SO, part("thinking", thinking="Oh.")]

    assert of_chat(content=parts) == "<think>Hm.\nOh.</think>So."


def test_only_the_assistant_thinks() -> None:
    message = {"role": "user", "content": [part("thinking", thinking="Hm."), SO]}

    assert prompt(CHAT, messages=[message | {"reasoning_content": "Hm."}]) == (
        "<user>So.<assistant>"
    )


def test_thoughts_before_calls_stay_with_the_calls() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}

    assert of_chat(content=None, tool_calls=[call], reasoning="Hm.") == f"<think>Hm.</think>{F}"


@pytest.mark.parametrize("member", ["content", "reasoning_content"])
def test_thoughts_have_the_limit_of_a_text(member: str) -> None:
    message = {"role": "assistant", "content": "So.", member: "a" * 200_000}
    client = Client(saying(""), template=TEMPLATE, dialect=Dialect(thinking=THINKING))

    status, error = client.error("POST", CHAT, {"messages": [USER, message, AGAIN]})

    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "messages")


def thought(*texts: str, **members: Any) -> dict[str, Any]:
    content = [part("reasoning_text", text=text) for text in texts]
    return {"type": "reasoning", "id": "rs_1", "summary": [], "content": content, **members}


MESSAGE = {"type": "message", "role": "assistant", "content": [part("output_text", text="So.")]}
F = HERMES.write([("f", {})])
FOUR = "<user><tool_response>\n4\n</tool_response>"
CALL = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "4"}
ASKED = {"role": "user", "content": "Why?"}


@pytest.mark.parametrize(
    ("items", "written"),
    [
        ([thought("Hm."), MESSAGE], "<assistant><think>Hm.</think>So."),
        ([thought("Hm.", "Oh."), MESSAGE], "<assistant><think>Hm.\nOh.</think>So."),
        (
            [thought(summary=[part("summary_text", text="Hm.")]), MESSAGE],
            "<assistant><think>Hm.</think>So.",
        ),
        (
            [thought(content=None, encrypted_content="AAAA", status=None), MESSAGE],
            "<assistant>So.",
        ),
        ([thought(summary="of no kind"), MESSAGE], "<assistant>So."),
        ([thought("Hm."), CALL, OUTPUT], f"<assistant><think>Hm.</think>{F}{FOUR}"),
        ([thought("Hm."), MESSAGE, CALL, OUTPUT], f"<assistant><think>Hm.</think>So.\n{F}{FOUR}"),
        (
            [thought("Hm."), CALL, OUTPUT, thought("Oh."), MESSAGE],
            f"<assistant><think>Hm.</think>{F}{FOUR}<assistant><think>Oh.</think>So.",
        ),
        ([thought("Hm.")], ""),
        (
            [MESSAGE | {"content": [part("reasoning_text", text="Hm."), SO]}],
            "<assistant><think>Hm.</think>So.",
        ),
    ],
)
def test_a_responses_thoughts_go_with_what_follows(items: list[Any], written: str) -> None:
    given = [ASKED, *items, {"role": "user", "content": "And?"}]

    assert prompt(RESPONSES, input=given) == f"<user>Why?{written}<user>And?<assistant>"
