"""OpenAI's own client, talking to either cloud: to uvicorn by its socket, to Lambda by events.

Clients that are made of OpenAI's take the same two parts, the address and the HTTP client.
"""

from __future__ import annotations

import asyncio

import httpx2
import openai

from tests.support.aws_events import HttpCall
from tests.support.servers import Cloud, CloudRun, Lambda


class FunctionUrl(httpx2.BaseTransport):
    """A transport that stands in for a function URL: each request becomes an event."""

    def __init__(self, function: Lambda) -> None:
        self._function = function

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return _answer(self._function, request, request.read())


class AsyncFunctionUrl(httpx2.AsyncBaseTransport):
    """The same for a client that waits for several answers at once."""

    def __init__(self, function: Lambda) -> None:
        self._function = function

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        content = await request.aread()
        return await asyncio.to_thread(_answer, self._function, request, content)


def _answer(function: Lambda, request: httpx2.Request, content: bytes) -> httpx2.Response:
    answer = function.send(HttpCall(request.method, request.url.path, content, request.headers))
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


def async_openai_client(cloud: Cloud) -> openai.AsyncOpenAI:
    """A client of the same kind for programs that are asynchronous."""
    http = (
        openai.DefaultAsyncHttpxClient(trust_env=False)
        if isinstance(cloud, CloudRun)
        else openai.DefaultAsyncHttpxClient(transport=AsyncFunctionUrl(cloud))
    )
    return openai.AsyncOpenAI(
        base_url=base_url(cloud), api_key="none", timeout=120.0, max_retries=0, http_client=http
    )
