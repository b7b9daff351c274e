"""The shapes in which AWS Lambda hands over a request and takes the answer back.

EVENT_KINDS is the table: which events a row matches, how it reads one into a Request, how it
writes a Response, and what its sender can carry. Knows nothing of the model. Called by
invocation.py, which keeps the limits.

| row | sent by |
|---|---|
| function URL | a function's own address (payload 2.0) |
| HTTP API | API Gateway HTTP API (payload 2.0) |
| HTTP API 1.0 | the same, where its integration asks for payload 1.0 |
| REST API | API Gateway REST API |
| load balancer | ALB, with single or multi-value headers |
| direct | `aws lambda invoke`, an SDK: the event is the request's body itself |
| ping | a schedule or a plug-in that keeps the function warm, or an invoke without a payload |
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, unquote_plus

import msgspec
from msgspec.structs import replace

from handlers.api.http import Request, Response
from handlers.api.routing import without_prefix
from handlers.aws_lambda import responses
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from handlers.artifact.manifest import Task
    from handlers.config import Settings

Event = Mapping[str, Any]
Shape = TypeVar("Shape")

HEALTH_PATH = "/healthz"

# Where a direct invoke goes, by the field that its endpoint cannot do without.
DIRECT_PATHS: Mapping[Task, Mapping[str, str]] = {
    "text-generation": {
        "messages": "/v1/chat/completions",
        "prompt": "/v1/completions",
        "input": "/v1/responses",
    },
    "feature-extraction": {"input": "/v1/embeddings"},
    "text-classification": {"input": "/v1/classify"},
    "text-ranking": {"documents": "/v1/rerank"},
}
DIRECT_FIELDS = frozenset(field for fields in DIRECT_PATHS.values() for field in fields)

# lambda-warmer and Bref send `warmer`, Laravel Vapor `vaporWarmer`, hand-made rules the others.
PING_KEY = re.compile(r"((is|keep|pre|vapor)[_-]?)?warm[_-]?(er|ing|up)?|ping", re.IGNORECASE)
# A word of its own: a docker-swarm or a lukewarm lead pings nobody.
PING_WORD = re.compile(r"(?<![a-z])(keep|pre)?[_-]?warm(er|ing|up)?(?![a-z])", re.IGNORECASE)
# What stands in the events of AWS's own services, of which none is a request or a ping.
SERVICE_KEYS = ("Records", "eventSource", "detail-type", "detail")
# Where a ping may say what it is: `source` of serverless-plugin-warmup, `type` of OpenNext.
PING_NAMES = ("source", "type", "action")
# EventBridge's own, of a rule or a schedule that has no input; Zappa's keep_warm has it too.
SCHEDULED = "Scheduled Event"
# Thundra's are text: "#warmup wait=100".
THUNDRA = "#warmup"

# What an error repeats of an event's keys: of a misdirected event they may be its data.
KEYS_SHOWN = 3
KEY_CHARACTERS = 40

# docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html. awslambdaric dies of the refusal
# of a larger one, and the next call pays a cold start.
LAMBDA_BYTES = 6 * 1024 * 1024
# docs.aws.amazon.com/lambda/latest/dg/configuration-response-streaming.html; 20 MB until July 2025.
STREAM_BYTES = 200 * 1024 * 1024
# docs.aws.amazon.com/elasticloadbalancing/latest/application/lambda-functions.html
LOAD_BALANCER_BYTES = 1024 * 1024

# docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
HTTP_API_SECONDS = 30.0


class EventKind(msgspec.Struct, frozen=True):
    """One row of the table."""

    matches: Callable[[Event], bool]
    read: Callable[[Event], Request]
    """Raises InvalidRequest."""
    write: Callable[[Response], Any]
    """Returns a value that JSON can hold: what the handler returns."""
    max_response_bytes: int = LAMBDA_BYTES
    """Of that value's JSON, as it is posted."""
    max_seconds: float | None = None
    """When the sender gives up, None where it waits as long as the function may run."""
    max_stream_bytes: int | None = None
    """Of a body that it passes on while it is made; None where it takes whole answers alone."""
    is_invoke: bool = False
    """Whether it calls the function itself: IAM has authorised it, and it sees no HTTP status but
    that an invocation failed."""


class _Http(msgspec.Struct):
    method: str


# Consoles' tests and hand-made events have null where there is nothing.
_Texts = dict[str, str | None] | None


class _HttpApiContext(msgspec.Struct):
    http: _Http
    stage: str | None = None


class _HttpApiEvent(msgspec.Struct, rename="camel"):
    request_context: _HttpApiContext
    raw_path: str
    path_parameters: _Texts = None
    raw_query_string: str | None = None
    headers: _Texts = None
    body: str | None = None
    is_base64_encoded: bool | None = None


class _StageContext(msgspec.Struct):
    stage: str | None = None


class _ProxyEvent(msgspec.Struct, rename="camel"):
    """REST APIs and load balancers; REST sends both forms of headers, ALB one of the two."""

    http_method: str
    path: str
    resource: str | None = None
    request_context: _StageContext | None = None
    path_parameters: _Texts = None
    headers: _Texts = None
    multi_value_headers: dict[str, list[str] | None] | None = None
    query_string_parameters: _Texts = None
    multi_value_query_string_parameters: dict[str, list[str] | None] | None = None
    body: str | None = None
    is_base64_encoded: bool | None = None


def parse(event: object) -> Event:
    """The event as a mapping. Raises InvalidRequest.

    awslambdaric decodes an event only where its content type is exactly application/json, and
    hands over the raw bytes of any other.
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
    """The row that matches. Raises InvalidRequest where none does."""
    for kind in EVENT_KINDS:
        if kind.matches(event):
            return _as_set(kind, settings, task)
    keys = ", ".join(str(key)[:KEY_CHARACTERS] for key in islice(event, KEYS_SHOWN))
    more = f" and {len(event) - KEYS_SHOWN:,} more" if len(event) > KEYS_SHOWN else ""
    raise InvalidRequest(
        "Kindling answers the events of a function URL, an API Gateway and a load balancer, a "
        "request's body with `messages`, `prompt`, `input` or `documents`, and a ping: "
        '{"warmup": true}. This event is none of them; its '
        f"keys: {keys}{more}. For a test, send "
        '{"version": "2.0", "rawPath": "/healthz", "requestContext": {"http": {"method": "GET"}}}.'
    )


def _as_set(kind: EventKind, settings: Settings, task: Task) -> EventKind:
    """With what the event cannot tell."""
    if kind is REST_API:
        # docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html
        streamed = STREAM_BYTES if settings.rest_streams else None
        return replace(kind, max_seconds=settings.rest_seconds, max_stream_bytes=streamed)
    return replace(kind, read=partial(_read_direct, task)) if kind is DIRECT else kind


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
    """A misdirected event may well have an `input` too, but an object."""
    if _is_of_a_service(event):
        return False
    return "messages" in event or any(
        isinstance(event.get(field), str | list) for field in DIRECT_FIELDS
    )


def _is_ping(event: Event) -> bool:
    """An event without anything in it is what an invoke without a payload sends."""
    if not event or event.get("detail-type") == SCHEDULED:
        return True
    if _is_of_a_service(event):
        return False
    if any(_says_warm(event.get(name)) for name in PING_NAMES):
        return True
    return any(value and PING_KEY.fullmatch(key) for key, value in event.items())


def _is_of_a_service(event: Event) -> bool:
    """Whether a queue, a topic, a bucket, a broker or a rule of EventBridge has sent it."""
    return any(key in event for key in SERVICE_KEYS)


def _says_warm(name: object) -> bool:
    return isinstance(name, str) and PING_WORD.search(name[:KEY_CHARACTERS]) is not None


def _read_http_api(event: Event) -> Request:
    shape = _convert(event, _HttpApiEvent)
    path = unquote(shape.raw_path)
    return Request(
        method=shape.request_context.http.method.upper(),
        path=path,
        query=dict(parse_qsl(shape.raw_query_string or "", keep_blank_values=True)),
        headers=_lower_names(_texts(shape.headers)),
        body=_body(shape),
        inner_paths=_inner_paths(path, shape.request_context.stage, shape.path_parameters),
    )


def _inner_paths(
    path: str, stage: str | None, parameters: _Texts, route: str | None = None
) -> tuple[str, ...]:
    """The path without its stage, and the part of it that the gateway's own route is about.

    An HTTP API puts the name of a stage before the path; a REST API, and payload 1.0, the base path
    of a custom domain's mapping. An event does not tell whether they did. `route`: the gateway's,
    such as /v1/models or /llm/{proxy+}; `parameters`: what stood in place of its braces.
    """
    filled = _texts(parameters)
    routed = re.sub(r"\{(\w+)\+?\}", lambda braces: filled.get(braces[1], ""), route or "")
    inner = [unquote(one) for one in (routed, *(f"/{value}" for value in filled.values()))]
    if stage:
        inner.insert(0, without_prefix(path, f"/{stage}"))
    return tuple(one for one in inner if one and one != path and path.endswith(one))


def _read_rest_api(event: Event) -> Request:
    shape = _convert(event, _ProxyEvent)
    path = unquote(shape.path)
    stage = shape.request_context.stage if shape.request_context else None
    return Request(
        method=shape.http_method.upper(),
        path=path,
        query=_query(shape),
        headers=_headers(shape),
        body=_body(shape),
        inner_paths=_inner_paths(path, stage, shape.path_parameters, shape.resource),
    )


def _read_load_balancer(event: Event) -> Request:
    request = _read_rest_api(event)
    # Unlike API Gateway, a load balancer hands the query over as the client encoded it.
    decoded = {unquote_plus(name): unquote_plus(text) for name, text in request.query.items()}
    return replace(request, query=decoded)


def _read_direct(task: Task, event: Event) -> Request:
    body = json.dumps(event).encode()
    return Request(method="POST", path=_direct_path(task, event), query={}, headers={}, body=body)


def _direct_path(task: Task, event: Event) -> str:
    """Of another task where the event has no field of this one's: the answer says what it needs."""
    tables = (DIRECT_PATHS[task], *DIRECT_PATHS.values())
    return next(path for paths in tables for field, path in paths.items() if field in event)


def _read_ping(_event: Event) -> Request:
    return Request(method="GET", path=HEALTH_PATH, query={}, headers={}, body=b"")


def _convert(event: Event, shape: type[Shape]) -> Shape:
    try:
        return msgspec.convert(event, shape)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The event cannot be read: {error}.") from None


def _query(shape: _ProxyEvent) -> dict[str, str]:
    single = _texts(shape.query_string_parameters)
    return single or _last(shape.multi_value_query_string_parameters)


def _headers(shape: _ProxyEvent) -> dict[str, str]:
    return _lower_names(_texts(shape.headers) or _last(shape.multi_value_headers))


def _texts(given: _Texts) -> dict[str, str]:
    return {name: text for name, text in (given or {}).items() if text is not None}


def _last(several: Mapping[str, list[str] | None] | None) -> dict[str, str]:
    return {name: values[-1] for name, values in (several or {}).items() if values}


def _lower_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _body(shape: _HttpApiEvent | _ProxyEvent) -> bytes:
    text = shape.body or ""
    if not shape.is_base64_encoded:
        # Half a surrogate pair reaches the API as the invalid UTF-8 that it is.
        return text.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("The body is not base64, though the event says so.") from None


REST_API = EventKind(_is_rest_api, _read_rest_api, responses.write_http)

DIRECT = EventKind(
    _is_direct,
    partial(_read_direct, "text-generation"),
    responses.write_direct,
    is_invoke=True,
)

EVENT_KINDS = (
    EventKind(
        _is_function_url,
        _read_http_api,
        responses.write_http,
        max_stream_bytes=STREAM_BYTES,
    ),
    EventKind(_is_http_api, _read_http_api, responses.write_http, max_seconds=HTTP_API_SECONDS),
    EventKind(
        _is_http_api_of_payload_1,
        _read_rest_api,
        responses.write_http,
        max_seconds=HTTP_API_SECONDS,
    ),
    REST_API,
    EventKind(
        _is_load_balancer,
        _read_load_balancer,
        responses.write_load_balancer,
        max_response_bytes=LOAD_BALANCER_BYTES,
    ),
    EventKind(
        _is_multi_value_load_balancer,
        _read_load_balancer,
        responses.write_multi_value_load_balancer,
        max_response_bytes=LOAD_BALANCER_BYTES,
    ),
    DIRECT,
    EventKind(_is_ping, _read_ping, responses.write_direct, is_invoke=True),
)
