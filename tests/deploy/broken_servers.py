"""A deployed API that works but for one thing: what the smoke test has to find out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from tests.support.aws_events import HttpCall
from tests.support.servers import HttpAnswer

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
CHAT = "/v1/chat/completions"

Breaks = Callable[[HttpCall], HttpAnswer | None]
"""An answer in place of the right one, or None."""


def on(path: str, answer: HttpAnswer, stream: bool | None = None) -> Breaks:
    def broken(call: HttpCall) -> HttpAnswer | None:
        asked = call.path == path and (stream is None or stream == is_stream(call))
        return answer if asked and not is_bad(call) else None

    return broken


def on_bad_requests(answer: HttpAnswer) -> Breaks:
    return lambda call: answer if is_bad(call) else None


def is_stream(call: HttpCall) -> bool:
    return b'"stream": true' in call.body


def is_bad(call: HttpCall) -> bool:
    return b"not a list" in call.body


def refusal(status: int) -> HttpAnswer:
    return HttpAnswer(status, JSON, b'{"error": {"message": "No."}}')


def events(*parts: str) -> bytes:
    return "".join(f"data: {part}\n\n" for part in parts).encode()


def delta(text: str, finish: str | None = None) -> str:
    return json.dumps({"choices": [{"delta": {"content": text}, "finish_reason": finish}]})


def usage(tokens: object) -> str:
    return json.dumps({"choices": [], "usage": {"completion_tokens": tokens}})


MERCURY = (delta("Mer"), delta("cury", "stop"))
RIGHT = events(*MERCURY, usage(2), "[DONE]")


def completion(text: str, tokens: object = 2) -> bytes:
    choice = {"message": {"content": text}, "finish_reason": "stop"}
    return json.dumps({"choices": [choice], "usage": {"completion_tokens": tokens}}).encode()


def working(call: HttpCall) -> HttpAnswer:
    """Returns what all the broken ones are but for one thing."""
    if is_bad(call):
        return refusal(400)
    if call.method == "OPTIONS":
        return HttpAnswer(204, {"allow": "POST, OPTIONS"}, b"")
    if call.path == "/health":
        return HttpAnswer(200, JSON, b'{"state": "ready", "model": "m"}')
    if is_stream(call):
        return HttpAnswer(200, EVENTS, RIGHT)
    return HttpAnswer(200, JSON, completion("Mercury"))


def streams(body: bytes, headers: Mapping[str, str] = EVENTS) -> Breaks:
    return on(CHAT, HttpAnswer(200, headers, body), stream=True)


def chats(body: bytes, status: int = 200) -> Breaks:
    return on(CHAT, HttpAnswer(status, JSON, body), stream=False)


def health(body: bytes, status: int = 200) -> Breaks:
    return on("/health", HttpAnswer(status, JSON, body))


# What RESPONSE_STREAM mode makes of an answer that is not streamed.
UNREAD = json.dumps({"statusCode": 200, "body": completion("Mercury").decode()}).encode()

UNCOUNTED = "the stream has no finish_reason, or no count of its tokens"
NO_PART = "an event is no part of a completion"

BROKEN: dict[str, tuple[Breaks, str]] = {
    "unhealthy": (health(b"", 503), "health +FAILED: /health answered 503: an empty body"),
    "draining": (health(b'{"state": "draining"}'), "health +FAILED: .* not ready"),
    "another program": (health(b"<html>Hello</html>"), "health +FAILED: got no JSON"),
    "a list": (health(b"[]"), "health +FAILED: .* not ready"),
    "a crash": (chats(b"Internal Server Error", 500), "chat +FAILED: .* answered 500: Internal"),
    "no text": (chats(completion("")), "chat +FAILED: the completion is empty"),
    "no completion": (chats(b"{}"), "chat +FAILED: .* no completion"),
    "an answer within an answer": (chats(UNREAD), "chat +FAILED: .* no completion"),
    "a stream that is none": (streams(completion("x"), JSON), "stream +FAILED: asked for a stream"),
    "an empty stream": (streams(events("[DONE]")), "stream +FAILED: .* no text in it"),
    "no end": (streams(events(*MERCURY, usage(2))), "stream +FAILED: .* not .DONE"),
    "half an event": (streams(RIGHT[:-20]), "stream +FAILED: .* within an event"),
    "a cut chunk": (
        on(CHAT, HttpAnswer(200, EVENTS | {"content-length": "9999"}, RIGHT[:40]), stream=True),
        "stream +FAILED: ",
    ),
    "an error in the stream": (
        streams(events(delta("a"), '{"error": {"message": "Out of memory."}}')),
        "stream +FAILED: .*Out of memory",
    ),
    "no JSON in the stream": (streams(events("hello")), "stream +FAILED: .* is no JSON"),
    "another text in the stream": (
        streams(events(delta("!!!!", "stop"), usage(2), "[DONE]")),
        "stream +FAILED: streamed it begins '!!!!', whole 'Mercury'",
    ),
    "text after the end": (
        streams(RIGHT + events(*MERCURY, "[DONE]")),
        "stream +FAILED: .* goes on after .DONE",
    ),
    "a stream without usage": (streams(events(*MERCURY, "[DONE]")), f"stream +FAILED: {UNCOUNTED}"),
    "a stream of no tokens": (
        streams(events(*MERCURY, usage(0), "[DONE]")),
        f"stream +FAILED: {UNCOUNTED}",
    ),
    "a stream without an end": (
        streams(events(delta("Mercury"), usage(2), "[DONE]")),
        f"stream +FAILED: {UNCOUNTED}",
    ),
    "words for a count": (streams(events(usage("abc"))), f"stream +FAILED: {NO_PART}"),
    "no delta": (streams(events('{"choices": [{"text": "x"}]}')), f"stream +FAILED: {NO_PART}"),
    "no choices": (streams(events('{"choices": null}')), f"stream +FAILED: {NO_PART}"),
    "a list in the stream": (streams(events("[]")), f"stream +FAILED: {NO_PART}"),
    "no UTF-8": (streams(b"data: \xff\xfe\n\n"), "stream +FAILED: .* is no JSON"),
    "an uncounted chat": (chats(completion("x", None)), "chat +FAILED: .* no count"),
    "an empty error": (
        on_bad_requests(HttpAnswer(400, JSON, b'{"error": {"message": ""}}')),
        "error +FAILED: .* no message",
    ),
    "a bad request served": (
        on_bad_requests(HttpAnswer(200, JSON, completion("Mercury"))),
        "error +FAILED: .* answered 200, not 400",
    ),
    "no HEAD": (
        lambda call: refusal(405) if call.method == "HEAD" else None,
        "no body +FAILED: HEAD /health answered 405",
    ),
    "no OPTIONS": (
        lambda call: refusal(403) if call.method == "OPTIONS" else None,
        f"no body +FAILED: OPTIONS {CHAT} answered 403: .*No",
    ),
    "an error without a reason": (
        on_bad_requests(HttpAnswer(400, JSON, b"{}")),
        "error +FAILED: .* no message",
    ),
}
