"""Failures of direct invokes: those that another try may not meet are raised, on both runtimes."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from handlers import errors
from handlers.api.error_responses import error_body, error_response
from handlers.api.http import Response, StreamOutcome, StreamResponse, run_sync
from handlers.aws_lambda.runtime import client
from handlers.aws_lambda.runtime.responder import serve
from handlers.config import Settings
from handlers.errors import RequestError
from tests.clouds.test_startup import run
from tests.support.aws_events import HttpCall, http_api
from tests.support.lambda_runtime import own_runtime
from tests.support.runtime_api import RuntimeApi

HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
HTTP = http_api(HttpCall("GET", "/healthz"))

RAISED: Sequence[RequestError] = (
    errors.Overloaded("As many as may be."),
    errors.EngineFault("what the inside looks like"),
    errors.NotReady("It is draining."),
    errors.DeadlineExceeded("It came too late."),
)
ANSWERED: Sequence[RequestError] = (
    errors.InvalidRequest("Wrong.", param="messages"),
    errors.NotFound("Nowhere."),
    errors.RequestTooLarge("Too large."),
)


class Failing:
    """As much of an Api as answers with an error, whole or in a stream."""

    task = "text-generation"

    def __init__(self, error: RequestError, streamed: bool) -> None:
        self._error = error
        self._streamed = streamed

    async def handle(self, _request: object) -> Response | StreamResponse:
        if not self._streamed:
            return error_response(self._error)

        async def chunks() -> AsyncGenerator[bytes]:
            yield b"data: " + msgspec.json.encode(error_body(self._error)) + b"\n\n"

        headers = {"content-type": "text/event-stream"}
        return StreamResponse(200, headers, chunks(), StreamOutcome(self._error))


def posted_for(event: object, error: RequestError, streamed: bool) -> tuple[str, Any]:
    """Returns what our runtime posts after such a failure: `response` or `error`, and its JSON."""
    failing = Failing(error, streamed)
    service: Any = SimpleNamespace(api=failing, settings=Settings.from_environ({}))
    with RuntimeApi() as lambdas_side, closing(client.RuntimeClient(lambdas_side.address)) as ours:
        invoked = lambdas_side.send(event)
        serve(service, run_sync, ours, ours.next_invocation())
        posted = invoked.answer()
    return posted.what, json.loads(posted.body)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_what_another_try_may_not_meet_is_an_error_of_the_invocation(
    error: RequestError, streamed: bool
) -> None:
    what, body = posted_for(HELLO, error, streamed)
    assert (what, body["errorType"]) == ("error", type(error).__name__)
    assert body["errorMessage"] == error_body(error).error.message


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("error", ANSWERED, ids=lambda error: type(error).__name__)
def test_what_another_try_would_meet_again_is_an_answer(
    error: RequestError, streamed: bool
) -> None:
    what, body = posted_for(HELLO, error, streamed)
    assert what == "response"
    assert streamed or (body["status"], body["error"]["code"]) == (error.status, error.code)


def test_an_http_client_gets_the_status() -> None:
    what, body = posted_for(HTTP, errors.Overloaded("As many as may be."), False)
    assert (what, body["statusCode"]) == ("response", 429)


ON_AWSLAMBDARIC = """
import sys
from awslambdaric.lambda_runtime_exception import FaultException
from handlers.aws_lambda.function import SERVICE, handler
from tests.clouds.aws_lambda.test_direct_failures import ANSWERED, HELLO, HTTP, RAISED, Failing

class Context:
    aws_request_id = "request-1"

    def get_remaining_time_in_millis(self):
        return 60_000

for streamed in (False, True):
    for error in (*RAISED, *ANSWERED):
        SERVICE.api.handle = Failing(error, streamed).handle
        try:
            handler(HELLO, Context())
        except FaultException as fault:
            assert "inside" not in fault.msg
            sys.stderr.write(f"{fault.exception_type} ")
        assert handler(HTTP, Context())["statusCode"] == (200 if streamed else error.status)
"""


def test_awslambdaric_is_given_the_same_to_report(tiny_artifact: Path) -> None:
    raised = [type(error).__name__ for error in RAISED]
    assert run(ON_AWSLAMBDARIC, tiny_artifact).split() == raised * 2


def test_an_invoke_that_finds_no_room_is_an_error(tiny_artifact: Path, directory: Path) -> None:
    limits = {"KINDLING_SLOTS": "1", "KINDLING_QUEUE_LIMIT": "1"}
    busy = HELLO | {"max_tokens": 200, "ignore_eos": True}
    with own_runtime(tiny_artifact, directory, 4, variables=limits) as runtime:
        posted = [each.answer() for each in [runtime.api.send(busy) for _ in range(4)]]
    refused = [json.loads(each.body)["errorType"] for each in posted if each.what == "error"]
    assert refused
    assert set(refused) == {"Overloaded"}
