"""The table of Lambda events: how to recognise, read and answer each kind, and its limits.

| kind | sent by |
|---|---|
| function URL | a function's own address (payload 2.0) |
| HTTP API | API Gateway HTTP API (payload 2.0) |
| HTTP API, payload 1.0 | the same, where its integration asks for payload 1.0 |
| REST API | API Gateway REST API |
| load balancer | ALB, with single or multi-value headers |
| direct invoke | `aws lambda invoke`, an SDK: the event is the request's body itself |
| ping | a schedule or a plug-in that keeps the function warm, or an invoke without a payload |
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec

from handlers.aws_lambda.event_formats import (
    DIRECT_FIELDS,
    Event,
    read_direct,
    read_http_api,
    read_load_balancer,
    read_ping,
    read_rest_api,
    write_direct,
    write_http,
    write_load_balancer,
    write_multi_value_load_balancer,
)
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.artifact.manifest import Task
    from handlers.config import Settings

# Keys of a ping: lambda-warmer and Bref send `warmer`, Laravel Vapor `vaporWarmer`, rules made by
# hand the others.
PING_KEY = re.compile(r"((is|keep|pre|vapor)[_-]?)?warm[_-]?(er|ing|up)?|ping", re.IGNORECASE)
# Only as a word of its own: a docker-swarm or a lukewarm lead is no ping.
PING_WORD = re.compile(r"(?<![a-z])(keep|pre)?[_-]?warm(er|ing|up)?(?![a-z])", re.IGNORECASE)
# Keys in the events of AWS's own services, none of which is a request or a ping.
SERVICE_KEYS = ("Records", "eventSource", "detail-type", "detail")
# Keys whose value may say that it is a ping: `source` of serverless-plugin-warmup, `type` of
# OpenNext.
PING_NAMES = ("source", "type", "action")
# The detail-type of an EventBridge rule or schedule without an input, and of Zappa's keep_warm.
SCHEDULED = "Scheduled Event"
# Thundra's pings are text: "#warmup wait=100".
THUNDRA = "#warmup"

# How much of an event's keys an error repeats: in a misdirected event they may be its data.
KEYS_SHOWN = 3
KEY_CHARACTERS = 40

# docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html. awslambdaric dies of the refusal
# of a larger one, and the next call pays a cold start.
LAMBDA_BYTES = 6 * 1024 * 1024
# docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html; 20 MB until July 2025.
# docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html
STREAM_BYTES = 200 * 1024 * 1024
# docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
LOAD_BALANCER_BYTES = 1024 * 1024

# docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
HTTP_API_SECONDS = 30.0


class EventKind(msgspec.Struct, frozen=True):
    """One row of the table: a sender of events, and what it can carry back."""

    matches: Callable[[Event], bool]
    read: Callable[[Event], Request]
    """Raises InvalidRequest."""
    write: Callable[[Response], Any]
    """Returns the JSON value that the sender takes as the answer."""
    max_response_bytes: int = LAMBDA_BYTES
    """The limit of that value's JSON, as it is posted."""
    max_seconds: float | None = None
    """When the sender gives up, None if it waits as long as the function may run."""
    max_stream_bytes: int | None = None
    """The limit of a streamed body, None if the sender takes whole answers only."""
    is_invoke: bool = False
    """True for a call of the function itself: IAM has authorised it, and its sender sees no HTTP
    status, only whether the invocation failed."""


def event_kinds(settings: Settings, task: Task) -> tuple[EventKind, ...]:
    """Returns the table for a function. An event is of the first kind that matches it."""
    return (
        EventKind(_is_function_url, read_http_api, write_http, max_stream_bytes=STREAM_BYTES),
        EventKind(_is_http_api, read_http_api, write_http, max_seconds=HTTP_API_SECONDS),
        EventKind(
            _is_http_api_of_payload_1, read_rest_api, write_http, max_seconds=HTTP_API_SECONDS
        ),
        EventKind(
            _is_rest_api,
            read_rest_api,
            write_http,
            max_seconds=settings.rest_seconds,
            max_stream_bytes=STREAM_BYTES if settings.rest_streams else None,
        ),
        EventKind(
            _is_load_balancer,
            read_load_balancer,
            write_load_balancer,
            max_response_bytes=LOAD_BALANCER_BYTES,
        ),
        EventKind(
            _is_multi_value_load_balancer,
            read_load_balancer,
            write_multi_value_load_balancer,
            max_response_bytes=LOAD_BALANCER_BYTES,
        ),
        EventKind(_is_direct, partial(read_direct, task), write_direct, is_invoke=True),
        EventKind(_is_ping, read_ping, write_direct, is_invoke=True),
    )


def parse(event: object) -> Event:
    """Returns the event as a mapping. Raises InvalidRequest where it is none.

    awslambdaric decodes an event only where its content type is exactly application/json, and
    passes any other on as bytes.
    """
    if isinstance(event, bytes):
        try:
            event = json.loads(event)
        except ValueError:
            raise InvalidRequest("The event is not JSON.") from None
    if isinstance(event, str) and event.startswith(THUNDRA):
        return {"warmup": True}
    if not isinstance(event, Mapping):
        raise InvalidRequest("The event is not a JSON object.")
    return event


def kind_of(event: Event, settings: Settings, task: Task) -> EventKind:
    """Returns the kind of an event. Raises InvalidRequest where it is of none."""
    for kind in event_kinds(settings, task):
        if kind.matches(event):
            return kind
    keys = ", ".join(str(key)[:KEY_CHARACTERS] for key in islice(event, KEYS_SHOWN))
    more = f" and {len(event) - KEYS_SHOWN:,} more" if len(event) > KEYS_SHOWN else ""
    raise InvalidRequest(
        "Kindling answers the events of a function URL, an API Gateway and a load balancer, a "
        "request's body with `messages`, `prompt`, `input` or `documents`, and a ping: "
        '{"warmup": true}. This event is none of them; its '
        f"keys: {keys}{more}. For a test, send "
        '{"version": "2.0", "rawPath": "/healthz", "requestContext": {"http": {"method": "GET"}}}.'
    )


def _context(event: Event) -> Event:
    context = event.get("requestContext")
    return context if isinstance(context, Mapping) else {}


def _is_function_url(event: Event) -> bool:
    return _is_http_api(event) and ".lambda-url." in str(_context(event).get("domainName"))


def _is_http_api(event: Event) -> bool:
    return event.get("version") == "2.0" and "http" in _context(event)


def _is_rest_api(event: Event) -> bool:
    return "httpMethod" in event and "resource" in event


def _is_http_api_of_payload_1(event: Event) -> bool:
    return event.get("version") == "1.0" and _is_rest_api(event)


def _is_load_balancer(event: Event) -> bool:
    return "elb" in _context(event) and "multiValueHeaders" not in event


def _is_multi_value_load_balancer(event: Event) -> bool:
    return "elb" in _context(event) and "multiValueHeaders" in event


def _is_direct(event: Event) -> bool:
    """Returns whether it is a request's body. The `input` of a misdirected event is an object."""
    if _is_of_a_service(event):
        return False
    return "messages" in event or any(
        isinstance(event.get(field), str | list) for field in DIRECT_FIELDS
    )


def _is_ping(event: Event) -> bool:
    """Returns whether it is a ping. An invoke without a payload sends an empty event."""
    if not event or event.get("detail-type") == SCHEDULED:
        return True
    if _is_of_a_service(event):
        return False
    if any(_says_warm(event.get(name)) for name in PING_NAMES):
        return True
    return any(value and PING_KEY.fullmatch(key) for key, value in event.items())


def _is_of_a_service(event: Event) -> bool:
    """Returns whether a queue, topic, bucket, broker or EventBridge rule has sent it."""
    return any(key in event for key in SERVICE_KEYS)


def _says_warm(name: object) -> bool:
    return isinstance(name, str) and PING_WORD.search(name[:KEY_CHARACTERS]) is not None
