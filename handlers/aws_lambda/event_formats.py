"""Reads a Lambda event of each kind into the API's Request, and writes its Response as an answer.

Each `read_…` function takes an event that events.py has recognised, and raises InvalidRequest where
it is damaged. Each `write_…` function returns the JSON value that the event's sender takes.
https://docs.aws.amazon.com/lambda/latest/dg/lambda-services.html links each format.
"""

from __future__ import annotations

import base64
import binascii
import http
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote, unquote_plus

import msgspec
from msgspec.structs import replace

from handlers.api.http import Request, Response
from handlers.api.routing import without_prefix
from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from handlers.artifact.manifest import Task

Event = Mapping[str, Any]
T = TypeVar("T")

HEALTH_PATH = "/healthz"

# Which path answers a direct invoke, by the field that its endpoint requires.
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

# The tests of consoles and events made by hand have null where there is nothing.
_Texts = dict[str, str | None] | None


class _Http(msgspec.Struct):
    method: str


class _HttpApiContext(msgspec.Struct):
    http: _Http
    stage: str | None = None


class _HttpApiEvent(msgspec.Struct, rename="camel"):
    """A function URL or an HTTP API, payload 2.0."""

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
    """A REST API or a load balancer. The first sends both forms of headers, the second either."""

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


def read_http_api(event: Event) -> Request:
    """Reads the event of a function URL or an HTTP API, payload 2.0."""
    parsed = _convert(event, _HttpApiEvent)
    path = unquote(parsed.raw_path)
    return Request(
        method=parsed.request_context.http.method.upper(),
        path=path,
        query=dict(parse_qsl(parsed.raw_query_string or "", keep_blank_values=True)),
        headers=_lower_names(_texts(parsed.headers)),
        body=_body(parsed),
        inner_paths=_inner_paths(path, parsed.request_context.stage, parsed.path_parameters),
    )


def read_rest_api(event: Event) -> Request:
    """Reads the event of a REST API, or of an HTTP API with payload 1.0."""
    parsed = _convert(event, _ProxyEvent)
    path = unquote(parsed.path)
    stage = parsed.request_context.stage if parsed.request_context else None
    return Request(
        method=parsed.http_method.upper(),
        path=path,
        query=_query(parsed),
        headers=_headers(parsed),
        body=_body(parsed),
        inner_paths=_inner_paths(path, stage, parsed.path_parameters, parsed.resource),
    )


def read_load_balancer(event: Event) -> Request:
    """Reads the event of an Application Load Balancer, with single or multi-value headers."""
    request = read_rest_api(event)
    # Unlike API Gateway, a load balancer hands the query over as the client encoded it.
    decoded = {unquote_plus(name): unquote_plus(text) for name, text in request.query.items()}
    return replace(request, query=decoded)


def read_direct(task: Task, event: Event) -> Request:
    """Reads a direct invoke, whose event is the request's body, for a model of that task."""
    body = json.dumps(event).encode()
    return Request(method="POST", path=_direct_path(task, event), query={}, headers={}, body=body)


def read_ping(_event: Event) -> Request:
    """Returns a request for the server's health."""
    return Request(method="GET", path=HEALTH_PATH, query={}, headers={}, body=b"")


def write_http(response: Response) -> dict[str, Any]:
    """Writes the answer to a function URL, an HTTP API or a REST API."""
    return _envelope(response) | {"headers": dict(response.headers)}


def write_load_balancer(response: Response) -> dict[str, Any]:
    """Writes the answer to a load balancer with single headers."""
    return write_http(response) | _description(response)


def write_multi_value_load_balancer(response: Response) -> dict[str, Any]:
    """Writes the answer to a load balancer with multi-value headers, which takes no others."""
    headers = {name: [value] for name, value in response.headers.items()}
    return _envelope(response) | _description(response) | {"multiValueHeaders": headers}


def write_direct(response: Response) -> Any:
    """Returns the body itself: the object, the text of a stream, or an error with its status."""
    if not response.headers["content-type"].startswith("application/json"):
        return response.body.decode()
    answer = json.loads(response.body)
    return answer if response.status < 400 else {"status": response.status} | answer


def _direct_path(task: Task, event: Event) -> str:
    """Returns another task's path if no field is this task's: the API then says what it needs."""
    tables = (DIRECT_PATHS[task], *DIRECT_PATHS.values())
    return next(path for paths in tables for field, path in paths.items() if field in event)


def _inner_paths(
    path: str, stage: str | None, parameters: _Texts, route: str | None = None
) -> tuple[str, ...]:
    """Returns the path without its stage, and the part of it that the gateway's route matched.

    An HTTP API puts the name of a stage in front of the path; a REST API, and payload 1.0, the base
    path of a custom domain's mapping. An event does not say whether they did. `route` is the
    gateway's, such as /v1/models or /llm/{proxy+}; `parameters` have what matched its braces.
    """
    filled = _texts(parameters)
    routed = re.sub(r"\{(\w+)\+?\}", lambda braces: filled.get(braces[1], ""), route or "")
    inner = [unquote(one) for one in (routed, *(f"/{value}" for value in filled.values()))]
    if stage:
        inner.insert(0, without_prefix(path, f"/{stage}"))
    return tuple(one for one in inner if one.strip("/") and one != path and path.endswith(one))


def _convert(event: Event, type_: type[T]) -> T:
    try:
        return msgspec.convert(event, type_)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"The event cannot be read: {error}.") from None


def _query(parsed: _ProxyEvent) -> dict[str, str]:
    single = _texts(parsed.query_string_parameters)
    return single or _last(parsed.multi_value_query_string_parameters)


def _headers(parsed: _ProxyEvent) -> dict[str, str]:
    return _lower_names(_texts(parsed.headers) or _last(parsed.multi_value_headers))


def _texts(given: _Texts) -> dict[str, str]:
    return {name: text for name, text in (given or {}).items() if text is not None}


def _last(several: Mapping[str, list[str] | None] | None) -> dict[str, str]:
    return {name: values[-1] for name, values in (several or {}).items() if values}


def _lower_names(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _body(parsed: _HttpApiEvent | _ProxyEvent) -> bytes:
    text = parsed.body or ""
    if not parsed.is_base64_encoded:
        # Half a surrogate pair reaches the API as the invalid UTF-8 that it is.
        return text.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest("The body is not base64, though the event says so.") from None


def _envelope(response: Response) -> dict[str, Any]:
    try:
        body, is_base64 = response.body.decode(), False
    except UnicodeDecodeError:
        body, is_base64 = base64.b64encode(response.body).decode(), True
    return {"statusCode": response.status, "body": body, "isBase64Encoded": is_base64}


def _description(response: Response) -> dict[str, str]:
    return {"statusDescription": f"{response.status} {http.HTTPStatus(response.status).phrase}"}
