"""Anthropic's own client, talking to either cloud, as openai_clients.py has OpenAI's."""

from __future__ import annotations

import anthropic
import httpx2

from tests.support.openai_clients import FunctionUrl
from tests.support.servers import Cloud, CloudRun


def anthropic_url(cloud: Cloud) -> str:
    """The client adds /v1 itself."""
    return cloud.url if isinstance(cloud, CloudRun) else "http://function"


def anthropic_http_client(cloud: Cloud) -> httpx2.Client:
    if isinstance(cloud, CloudRun):
        return anthropic.DefaultHttpxClient(trust_env=False)
    return anthropic.DefaultHttpxClient(transport=FunctionUrl(cloud))


def anthropic_client(
    cloud: Cloud, key: str | None = "none", token: str | None = None, timeout: float = 120.0
) -> anthropic.Anthropic:
    """A client that asks once. `key` goes into one header and `token` into another."""
    return anthropic.Anthropic(
        base_url=anthropic_url(cloud),
        api_key=key,
        auth_token=token,
        timeout=timeout,
        max_retries=0,
        http_client=anthropic_http_client(cloud),
    )
