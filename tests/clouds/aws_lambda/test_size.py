"""Whole answers at Lambda's limit of size, which is of the bytes that a runtime posts."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.api.error_responses import error_response
from handlers.api.http import Response, run_sync
from handlers.aws_lambda.runtime import client
from handlers.aws_lambda.runtime.responder import serve
from handlers.config import Settings
from handlers.errors import RequestError
from tests.clouds.test_startup import run
from tests.support.aws_events import HttpCall, http_api
from tests.support.runtime_api import RuntimeApi

SIX_MEGABYTES = 6 * 1024 * 1024
EVENT = http_api(HttpCall("GET", "/healthz"))


class Saying:
    """As much of an Api as answers with some text."""

    task = "text-generation"

    def __init__(self) -> None:
        self.text = ""

    async def handle(self, _request: object) -> Response:
        return Response(200, {"content-type": "text/plain"}, self.text.encode())

    def refuse(self, error: RequestError, _headers: object) -> Response:
        return error_response(error)


def test_our_runtime_counts_a_character_beyond_ascii_as_the_bytes_of_utf8() -> None:
    saying = Saying()
    service: Any = SimpleNamespace(api=saying, settings=Settings.from_environ({}))
    with RuntimeApi() as lambdas_side, closing(client.RuntimeClient(lambdas_side.address)) as ours:

        def posted(text: str) -> bytes:
            saying.text = text
            invoked = lambdas_side.send(EVENT)
            serve(service, run_sync, ours, ours.next_invocation())
            return invoked.answer().body

        posted("")  # of a process the first answer has one header more
        room = SIX_MEGABYTES - len(posted(""))
        largest = "東" * (room // 3) + "a" * (room % 3)
        assert len(posted(largest)) == SIX_MEGABYTES
        refused = json.loads(posted(largest + "a"))
    assert refused["statusCode"] == 413
    assert json.loads(refused["body"])["error"]["code"] == "response_too_large"


AT_THE_LIMIT = """
import sys
from awslambdaric.lambda_runtime_marshaller import LambdaMarshaller
from handlers.aws_lambda.function import SERVICE, handler
from tests.clouds.aws_lambda.test_size import EVENT, SIX_MEGABYTES, Saying

class Context:
    aws_request_id = "request-1"

    def get_remaining_time_in_millis(self):
        return 60_000

saying = Saying()
SERVICE.api.handle = saying.handle

def posted(text):
    saying.text = text
    return LambdaMarshaller().marshal_response(handler(EVENT, Context()))[0].encode()

posted("")
room = SIX_MEGABYTES - len(posted(""))
each = len(posted("\\N{CJK UNIFIED IDEOGRAPH-6771}")) - len(posted(""))
largest = "\\N{CJK UNIFIED IDEOGRAPH-6771}" * (room // each) + "a" * (room % each)
assert len(posted(largest)) == SIX_MEGABYTES, len(posted(largest))
assert b"response_too_large" in posted(largest + "a")
sys.stderr.write(str(each))
"""


@pytest.mark.parametrize(("environment", "bytes_each"), [("", 6), ("AWS_Lambda_python3.13", 3)])
def test_awslambdaric_counts_it_as_awslambdaric_writes_it(
    tiny_artifact: Path, environment: str, bytes_each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which it decides by a variable of the managed runtimes, which an image may set too."""
    monkeypatch.setenv("AWS_EXECUTION_ENV", environment)
    assert run(AT_THE_LIMIT, tiny_artifact) == str(bytes_each)
