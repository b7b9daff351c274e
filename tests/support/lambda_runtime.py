"""Our own Lambda runtime as a real process, with the stand-in for the Runtime API."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.aws_events import HttpCall, function_url
from tests.support.invocations import Invoked, Posted
from tests.support.runtime_api import RuntimeApi
from tests.support.servers import (
    AWSLAMBDARIC,
    OWN_RUNTIME,
    HttpAnswer,
    Process,
    process_of,
    streamed_answer,
    whole_answer,
)


@dataclass(frozen=True)
class OwnRuntime:
    """`python -m handlers.aws_lambda.runtime`."""

    process: Process
    api: RuntimeApi

    def begin(self, path: str, body: object, **headers: str) -> Invoked:
        """An invocation through a function URL, not waited for."""
        call = HttpCall("POST", path, json.dumps(body).encode(), headers)
        return self.api.send(function_url(call))

    def send(self, call: HttpCall) -> HttpAnswer:
        return http_answer(self.api.send(function_url(call)).answer())

    def post(self, path: str, body: object, **headers: str) -> HttpAnswer:
        return http_answer(self.begin(path, body, **headers).answer())

    def invoke(self, event: object) -> Any:
        """A direct invocation's answer, or the error that the runtime reports."""
        return json.loads(self.api.send(event).answer().body)

    def health(self) -> Any:
        return self.send(HttpCall("GET", "/healthz")).json()


def http_answer(posted: Posted) -> HttpAnswer:
    """The answer that a function URL's client gets."""
    if posted.what == "error":
        raise RuntimeError(f"The invocation failed: {posted.body!r}")
    if posted.streamed:
        return streamed_answer(posted.body)
    return whole_answer(json.loads(posted.body))


@contextmanager
def own_runtime(
    model_dir: Path,
    directory: Path,
    concurrency: int = 1,
    command: Sequence[str] = OWN_RUNTIME,
    variables: Mapping[str, str] | None = None,
) -> Iterator[OwnRuntime]:
    """A process that has begun to load; leaving raises what broke the protocol."""
    environ = dict(variables or {})
    if concurrency > 1:
        environ["AWS_LAMBDA_MAX_CONCURRENCY"] = str(concurrency)
    invoke_mode = "BUFFERED" if command == AWSLAMBDARIC else "RESPONSE_STREAM"
    transfer_mode = "STREAM" if environ.get("KINDLING_REST_API") == "stream" else "BUFFERED"
    with (
        RuntimeApi(concurrency, invoke_mode, transfer_mode) as api,
        process_of(
            [*command], model_dir, directory, AWS_LAMBDA_RUNTIME_API=api.address, **environ
        ) as process,
    ):
        yield OwnRuntime(process, api)
