"""OpenAI's own client, talking to either cloud: to uvicorn by its socket, to Lambda by events.

Clients that are made of OpenAI's take the same two parts, the address and the HTTP client.
"""

from __future__ import annotations

import httpx2
import openai

from tests.support.aws_events import HttpCall
from tests.support.servers import Cloud, CloudRun, Lambda


class FunctionUrl(httpx2.BaseTransport):
    """A transport that stands in for a function URL: each request becomes an event."""

    def __init__(self, function: Lambda) -> None:
        self._function = function

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        call = HttpCall(request.method, request.url.path, request.read(), request.headers)
        answer = self._function.send(call)
        return httpx2.Response(answer.status, headers=dict(answer.headers), content=answer.body)


def base_url(cloud: Cloud) -> str:
    return f"{cloud.url if isinstance(cloud, CloudRun) else 'http://function'}/v1"


def http_client(cloud: Cloud) -> httpx2.Client:
    if isinstance(cloud, CloudRun):
        return openai.DefaultHttpxClient(trust_env=False)
    return openai.DefaultHttpxClient(transport=FunctionUrl(cloud))


def openai_client(cloud: Cloud, key: str = "none", timeout: float = 120.0) -> openai.OpenAI:
    """A client that asks once."""
    return openai.OpenAI(
        base_url=base_url(cloud),
        api_key=key,
        timeout=timeout,
        max_retries=0,
        http_client=http_client(cloud),
    )
