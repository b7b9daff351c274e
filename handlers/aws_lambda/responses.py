"""Writes the API's Response as the JSON value that each sender of a Lambda event takes."""

from __future__ import annotations

import base64
import http
import json
from typing import Any

from handlers.api.http import Response


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


def _envelope(response: Response) -> dict[str, Any]:
    try:
        body, is_base64 = response.body.decode(), False
    except UnicodeDecodeError:
        body, is_base64 = base64.b64encode(response.body).decode(), True
    return {"statusCode": response.status, "body": body, "isBase64Encoded": is_base64}


def _description(response: Response) -> dict[str, str]:
    return {"statusDescription": f"{response.status} {http.HTTPStatus(response.status).phrase}"}
