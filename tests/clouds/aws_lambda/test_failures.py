"""Our own Lambda runtime when connections die, answers are refused and signals arrive."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.api.http import Request, Response, run_sync
from handlers.aws_lambda.runtime import client, http11
from handlers.aws_lambda.runtime.http11 import Reply
from handlers.aws_lambda.runtime.poller import poll_in_this_thread
from handlers.aws_lambda.runtime.protocol import ErrorReport, ShuttingDown, read_invocation
from handlers.aws_lambda.runtime.responder import serve
from handlers.config import Settings, trace_id
from tests.clouds.aws_lambda.test_runtime import CHAT, ENDLESS, HELLO, STREAMED
from tests.support.aws_events import HttpCall, function_url, http_api
from tests.support.event_stream import events
from tests.support.invocations import SERVING_CUTS, Cut
from tests.support.lambda_runtime import OwnRuntime, http_answer, own_runtime
from tests.support.runtime_api import RuntimeApi
from tests.support.servers import wait_until


@pytest.fixture
def own(tiny_artifact: Path, directory: Path) -> Iterator[OwnRuntime]:
    """One that a test may harm."""
    with own_runtime(tiny_artifact, directory) as runtime:
        yield runtime


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("where", SERVING_CUTS, ids=lambda where: where.value)
def test_a_connection_that_dies_loses_no_later_invocation(
    own: OwnRuntime, where: Cut, stream: bool
) -> None:
    own.health()
    own.api.cut(where)
    own.begin(CHAT, HELLO | {"stream": stream})
    later = [own.begin(CHAT, HELLO | {"stream": stream}) for _ in range(3)]
    for invoked in later:
        assert http_answer(invoked.answer()).status == 200
    assert own.api.all_cut


def test_a_whole_answer_is_posted_again_where_the_connection_died(own: OwnRuntime) -> None:
    own.api.cut(Cut.BEFORE_BODY)
    assert own.post(CHAT, HELLO).status == 200


def test_a_stream_of_which_lambda_has_seen_nothing_is_an_error(own: OwnRuntime) -> None:
    own.api.cut(Cut.BEFORE_BODY)
    assert own.begin(CHAT, STREAMED).answer().what == "error"


def test_a_connection_that_dies_while_nothing_is_asked_is_opened_again(own: OwnRuntime) -> None:
    for _ in range(7):
        own.health()
        wait_until(lambda: own.api.asked_for)
        own.api.cut_all()
    assert own.health()["state"] == "ready"


def test_a_frozen_process_goes_on_where_it_was(own: OwnRuntime) -> None:
    """Between invocations, and during a stream, as Lambda never does but a busy machine may."""
    own.health()
    own.process.popen.send_signal(signal.SIGSTOP)
    invoked = own.begin(CHAT, ENDLESS)
    own.process.popen.send_signal(signal.SIGCONT)
    invoked.chunk()
    own.process.popen.send_signal(signal.SIGSTOP)
    own.process.popen.send_signal(signal.SIGCONT)
    assert events(http_answer(invoked.answer()).body)


def test_connections_that_die_while_the_process_is_frozen_are_opened_again(
    own: OwnRuntime,
) -> None:
    own.health()
    own.process.popen.send_signal(signal.SIGSTOP)
    own.api.cut_all()
    own.process.popen.send_signal(signal.SIGCONT)
    assert own.post(CHAT, STREAMED).status == 200


def test_a_killed_process_takes_its_invocation_with_it_and_a_new_one_serves_the_next(
    tiny_artifact: Path, directory: Path, own: OwnRuntime
) -> None:
    invoked = own.begin(CHAT, ENDLESS)
    invoked.chunk()
    own.process.popen.kill()
    assert own.process.wait() == -signal.SIGKILL
    with own_runtime(tiny_artifact, directory) as second:
        assert second.post(CHAT, HELLO).status == 200


def test_sigterm_ends_a_process_that_waits_with_status_0(own: OwnRuntime) -> None:
    own.health()
    wait_until(lambda: own.api.asked_for)
    own.process.popen.send_signal(signal.SIGTERM)
    assert own.process.wait() == 0
    assert "Traceback" not in own.process.output


def test_without_a_runtime_api_the_process_ends_with_a_line(own: OwnRuntime) -> None:
    own.health()
    own.api.close()
    assert own.process.wait() == 1
    assert own.process.output.splitlines()[-1].startswith("Kindling ends: ")


def test_connections_may_die_of_age_any_number_of_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LIVED_SECONDS", 0.0)
    with (
        RuntimeApi() as lambdas_side,
        closing(client.RuntimeClient(lambdas_side.address)) as ours,
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(ours.next_invocation)
        for _ in range(2 * len(client.RETRY_SECONDS)):
            wait_until(lambda: lambdas_side.asked_for)
            lambdas_side.cut_all()
        invoked = lambdas_side.send({})
        assert asked.result().id == invoked.id


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_refused_answer_is_an_error_and_the_reason_is_in_the_log(
    own: OwnRuntime, stream: bool
) -> None:
    call = HttpCall("POST", CHAT, json.dumps(ENDLESS | {"stream": stream}).encode())
    invoked = own.api.send(function_url(call), refused_with=413)
    assert invoked.answer().what == "error"
    assert own.health()["running"] == 0
    assert "the reason" in own.process.output
    assert own.process.requests[0]["status"] == (502 if stream else 200)


def test_a_direct_answer_that_is_refused_is_an_error(own: OwnRuntime) -> None:
    assert own.api.send(HELLO, refused_with=413).answer().what == "error"
    assert own.health()["state"] == "ready"


def test_lambdas_500_ends_the_process(own: OwnRuntime) -> None:
    """AWS: "Non-recoverable state. Runtime should exit promptly"."""
    own.api.send(HELLO, refused_with=500)
    assert own.process.wait() == 1
    assert own.process.output.splitlines()[-1].startswith("Kindling ends: ")


def test_an_invocation_without_a_deadline_is_answered_and_not_shown(own: OwnRuntime) -> None:
    secret = {"messages": [{"role": "user", "content": "a secret"}], "max_tokens": 2}
    invoked = own.api.send(secret, seconds=None)
    assert json.loads(invoked.answer().body)["object"] == "chat.completion"
    assert "lambda-runtime-deadline-ms" in own.process.output
    assert "secret" not in own.process.output


def test_an_invocation_without_an_id_is_not_shown() -> None:
    with pytest.raises(ConnectionError) as raised:
        read_invocation(Reply(200, {}, b"a secret"))
    assert "secret" not in str(raised.value)


def test_an_error_of_the_start_may_name_what_utf8_cannot_carry() -> None:
    report = ErrorReport("ArtifactError", "No model at /\udc80")
    assert json.loads(report.body)["errorMessage"][-1] == "?"


class Panic(BaseException):
    """A panic in Rust as Python sees it."""


class Panicking:
    task = "text-generation"

    async def handle(self, _request: object) -> Any:
        raise Panic("what the inside looks like")


class Broken:
    task = "text-generation"

    async def handle(self, _request: object) -> Any:
        raise ZeroDivisionError("what the inside looks like")


@pytest.mark.parametrize("broken", [Panicking(), Broken()], ids=["panic", "bug"])
def test_whatever_an_answer_fails_of_is_an_error_that_tells_nothing_of_the_inside(
    broken: object,
) -> None:
    service: Any = SimpleNamespace(api=broken, settings=Settings.from_environ({}))
    with RuntimeApi() as lambdas_side, closing(client.RuntimeClient(lambdas_side.address)) as ours:
        invoked = lambdas_side.send(HELLO)
        serve(service, run_sync, ours, ours.next_invocation())
        posted = invoked.answer()
    assert posted.what == "error"
    assert json.loads(posted.body)["errorType"] == "EngineFault"
    assert b"inside" not in posted.body


class Looking:
    """Takes down the traces that a request and its process have, and ends the third."""

    task = "text-generation"

    def __init__(self) -> None:
        self.seen: list[tuple[str | None, str | None]] = []

    async def handle(self, request: Request) -> Response:
        if len(self.seen) == 2:
            raise SystemExit
        self.seen.append((request.headers.get("x-amzn-trace-id"), trace_id()))
        return Response(200, {"content-type": "application/json"}, b"{}")


def test_each_invocation_hands_its_trace_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_X_AMZN_TRACE_ID", "of another")
    looking = Looking()
    service: Any = SimpleNamespace(api=looking, settings=Settings.from_environ({}))
    given = HttpCall("GET", "/healthz", headers={"x-amzn-trace-id": "Root=1-mine"})
    with RuntimeApi() as lambdas_side, closing(client.RuntimeClient(lambdas_side.address)) as ours:
        bare, named, _ = [lambdas_side.send(each) for each in (HELLO, http_api(given), HELLO)]
        with pytest.raises(SystemExit):
            poll_in_this_thread(service, ours)
    assert looking.seen == [(bare.trace_id, bare.trace_id), ("Root=1-mine", named.trace_id)]


def test_sigterm_during_a_stream_lets_it_end(own: OwnRuntime) -> None:
    invoked = own.begin(CHAT, ENDLESS)
    invoked.chunk()
    own.process.popen.send_signal(signal.SIGTERM)
    assert http_answer(invoked.answer()).body.endswith(b"data: [DONE]\n\n")
    assert own.process.wait() == 0
    assert "Traceback" not in own.process.output


def test_a_second_sigterm_waits_for_nothing(demo_artifact: Path, directory: Path) -> None:
    with own_runtime(demo_artifact, directory) as runtime:
        invoked = runtime.begin(CHAT, ENDLESS | {"max_tokens": 1500})
        invoked.chunk()

        def ended_by_one_more() -> bool:
            runtime.process.popen.send_signal(signal.SIGTERM)
            return runtime.process.popen.poll() is not None

        wait_until(ended_by_one_more)
        assert invoked.posted.empty()


def test_sigterm_ends_a_long_answer_after_the_drain(demo_artifact: Path, directory: Path) -> None:
    short = {"KINDLING_DRAIN_SECONDS": "0.1"}
    with own_runtime(demo_artifact, directory, variables=short) as runtime:
        invoked = runtime.begin(CHAT, ENDLESS | {"max_tokens": 1500})
        invoked.chunk()
        runtime.process.popen.send_signal(signal.SIGTERM)
        assert b'"finish_reason":"length"' in invoked.answer().body
        assert invoked.chunks.qsize() < 1000
        assert runtime.process.wait() == 0


@pytest.mark.parametrize("size", [b"-1", b"1_0", b""])
def test_a_reply_of_a_size_that_is_none_is_no_reply(size: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: " + size + b"\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connection = http11.Connection(f"127.0.0.1:{listener.getsockname()[1]}")
        accepted, _ = listener.accept()
        with accepted, closing(connection):
            accepted.sendall(head)
            with pytest.raises(ConnectionError, match="not HTTP"):
                connection.reply()


def test_a_stop_ends_the_wait_for_an_invocation_and_every_later_one() -> None:
    with (
        RuntimeApi() as lambdas_side,
        closing(client.RuntimeClient(lambdas_side.address)) as ours,
        ThreadPoolExecutor(1) as pool,
    ):
        asked = pool.submit(ours.next_invocation)
        wait_until(lambda: lambdas_side.asked_for)
        ours.stop()
        with pytest.raises(ShuttingDown):
            asked.result()
        with pytest.raises(ShuttingDown):
            ours.next_invocation()
