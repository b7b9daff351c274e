"""OpenAI's own client, talking to either cloud: to uvicorn by its socket, to Lambda by events."""

from __future__ import annotations

import httpx2
import openai

from tests.support.aws_events import HttpCall
from tests.support.servers import Cloud, CloudRun, Lambda


class FunctionUrl(httpx2.BaseTransport):
    """What stands before a function with a URL: each request becomes an event."""

    def __init__(self, function: Lambda) -> None:
        self._function = function

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        call = HttpCall(request.method, request.url.path, request.read(), request.headers)
        answer = self._function.send(call)
        return httpx2.Response(answer.status, headers=dict(answer.headers), content=answer.body)


def openai_client(cloud: Cloud, key: str = "none", timeout: float = 120.0) -> openai.OpenAI:
    """A client that asks once."""
    if isinstance(cloud, CloudRun):
        url, http = cloud.url, openai.DefaultHttpxClient(trust_env=False)
    else:
        url, http = "http://function", openai.DefaultHttpxClient(transport=FunctionUrl(cloud))
    return openai.OpenAI(
        base_url=f"{url}/v1", api_key=key, timeout=timeout, max_retries=0, http_client=http
    )
