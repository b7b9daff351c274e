"""AWS's own sample events, with a request of ours put into them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus, urlencode

EVENTS = Path(__file__).parent.parent / "clouds" / "aws_lambda" / "events"

Event = dict[str, Any]


@dataclass(frozen=True)
class HttpCall:
    """A request as a client sends it, before a cloud wraps it."""

    method: str
    path: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)


def function_url(call: HttpCall) -> Event:
    return _payload_2("function_url", call, stage="")


def http_api(call: HttpCall) -> Event:
    """The event of an HTTP API with a stage named live."""
    return _payload_2("http_api", call, stage="/live")


def rest_api(call: HttpCall) -> Event:
    return _proxy("rest_api", call) | {
        "headers": dict(call.headers),
        "multiValueHeaders": {name: [value] for name, value in call.headers.items()},
        "queryStringParameters": dict(call.query) or None,
        "multiValueQueryStringParameters": {n: [v] for n, v in call.query.items()} or None,
    }


def load_balancer(call: HttpCall) -> Event:
    return _proxy("load_balancer", call) | {
        "headers": dict(call.headers),
        "queryStringParameters": _encoded(call.query),
    }


def multi_value_load_balancer(call: HttpCall) -> Event:
    return _proxy("multi_value_load_balancer", call) | {
        "multiValueHeaders": {name: [value] for name, value in call.headers.items()},
        "multiValueQueryStringParameters": {n: [v] for n, v in _encoded(call.query).items()},
    }


HTTP_KINDS: tuple[Callable[[HttpCall], Event], ...] = (
    function_url,
    http_api,
    rest_api,
    load_balancer,
    multi_value_load_balancer,
)


PINGS: tuple[object, ...] = (
    {
        "version": "0",
        "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718",
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": "123456789012",
        "time": "2026-01-01T00:00:00Z",
        "region": "eu-central-1",
        "resources": ["arn:aws:events:eu-central-1:123456789012:rule/warm"],
        "detail": {},
    },
    {"source": "serverless-plugin-warmup"},
    {"source": "serverless-plugin-lambda-warmup"},
    {"warmer": True, "concurrency": 3, "__WARMER_INVOCATION__": 2, "__WARMER_CONCURRENCY__": 3},
    {"type": "warmer", "warmerId": "warmer-1", "index": 0, "concurrency": 1, "delay": 75},
    {"vaporWarmer": True},
    {"keep_warm": 1},
    {"ping": True},
    "#warmup wait=100",
)
"""What EventBridge, plug-ins and libraries send to keep a function warm."""


def _payload_2(name: str, call: HttpCall, stage: str) -> Event:
    event = _sample(name)
    event["requestContext"]["http"] |= {"method": call.method, "path": stage + call.path}
    return (
        event
        | _body(call)
        | {
            "rawPath": stage + quote(call.path),
            "rawQueryString": urlencode(call.query),
            "headers": {name.lower(): value for name, value in call.headers.items()},
        }
    )


def _proxy(name: str, call: HttpCall) -> Event:
    return _sample(name) | _body(call) | {"httpMethod": call.method, "path": call.path}


def _body(call: HttpCall) -> Event:
    """The body as a gateway has it: text as it is, other bytes in base64, an empty body as null."""
    if not call.body:
        return {"body": None, "isBase64Encoded": False}
    try:
        return {"body": call.body.decode(), "isBase64Encoded": False}
    except UnicodeDecodeError:
        return {"body": base64.b64encode(call.body).decode(), "isBase64Encoded": True}


def _encoded(query: Mapping[str, str]) -> dict[str, str]:
    return {quote_plus(name): quote_plus(value) for name, value in query.items()}


def _sample(name: str) -> Event:
    event: Event = json.loads((EVENTS / f"{name}.json").read_text())
    return event
