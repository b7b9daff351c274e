"""Cold start: from just before a process is started until the first token of its first answer."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from typing import Any

from bench.processes import read_mb
from bench.runtime_api import RuntimeApi
from bench.servers import Server, running
from bench.workload import PATH, SHORT, START_LIMIT_SECONDS, first_answer, request_body


@dataclass(frozen=True, slots=True)
class ColdStart:
    """The times of one start of a server."""

    milliseconds: float
    read_mb: float
    """Megabytes fetched from the disk until the answer; 0 when all was in the page cache."""


def cold_start(server: Server, prompt: str) -> ColdStart:
    """Starts the server, has it answer once, and ends it. Raises RuntimeError where it cannot."""
    return _on_lambda(server, prompt) if server.port == 0 else _over_http(server, prompt)


def _over_http(server: Server, prompt: str) -> ColdStart:
    started = time.perf_counter()
    with running(server) as process:
        answer = first_answer(server, process, prompt)
        return ColdStart((answer.first - started) * 1e3, read_mb(process.pid))


def _on_lambda(server: Server, prompt: str) -> ColdStart:
    with RuntimeApi() as api:
        api.send(function_url_event(request_body(prompt, 1)))
        environ = {**server.environ, "AWS_LAMBDA_RUNTIME_API": api.address}
        started = time.perf_counter()
        with running(replace(server, environ=environ)) as process:
            answer, arrived = api.answer(lambda: process.poll() is None, START_LIMIT_SECONDS)
            _check(server, answer)
            return ColdStart((arrived - started) * 1e3, read_mb(process.pid))


def function_url_event(body: dict[str, Any]) -> dict[str, Any]:
    """An event of a function URL, payload 2.0, without what no handler of a completion reads."""
    return {
        "version": "2.0",
        "rawPath": PATH,
        "rawQueryString": "",
        "headers": {"content-type": "application/json"},
        "requestContext": {"http": {"method": "POST", "path": PATH}, "stage": "$default"},
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }


def _check(server: Server, answer: dict[str, Any]) -> None:
    usage = json.loads(answer["body"]).get("usage") or {}
    counted = answer["statusCode"], usage.get("prompt_tokens"), usage.get("completion_tokens")
    if counted != (200, SHORT, 1):
        raise RuntimeError(f"{server.name} answered {counted}: {answer['body'][:500]}")
