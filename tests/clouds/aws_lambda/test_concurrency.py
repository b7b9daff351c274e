"""Many invocations at once, as Lambda Managed Instances send them: one process, one model."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from ctypes import CDLL
from pathlib import Path

import pytest

from bench.processes import process_tree, rss_mb
from tests.clouds.aws_lambda.test_runtime import CHAT, ENDLESS, HELLO, NO_REQUESTS, STREAMED
from tests.support.event_stream import events, joined_text
from tests.support.lambda_runtime import OwnRuntime, http_answer, own_runtime
from tests.support.servers import PATIENCE_SECONDS, wait_until

AT_ONCE = 4


@pytest.fixture(scope="module")
def together(tiny_artifact: Path, directory: Path) -> Iterator[OwnRuntime]:
    with own_runtime(tiny_artifact, directory, AT_ONCE) as runtime:
        yield runtime


def question(number: int) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": f"Number {number}"}]}


def test_as_many_as_lambda_sends_are_answered_at_once_by_one_process(
    together: OwnRuntime,
) -> None:
    streams = [together.begin(CHAT, ENDLESS) for _ in range(AT_ONCE)]
    for stream in streams:
        stream.chunk()
    assert together.api.most_at_once == AT_ONCE
    for stream in streams:
        assert events(http_answer(stream.answer()).body)
    pid = together.process.popen.pid
    assert process_tree(pid) == [pid]


def test_each_gets_the_answer_that_it_gets_alone(
    together: OwnRuntime, tiny_artifact: Path, directory: Path
) -> None:
    bodies = [STREAMED | question(number) for number in range(3 * AT_ONCE)]
    answers = [together.begin(CHAT, body) for body in bodies]
    texts = [joined_text(events(http_answer(answer.answer()).body)) for answer in answers]
    with own_runtime(tiny_artifact, directory) as alone:
        expected = [joined_text(events(alone.post(CHAT, body).body)) for body in bodies]
    assert texts == expected
    assert len(set(texts)) > 1


def test_each_is_logged_by_the_names_that_lambda_has_for_it(together: OwnRuntime) -> None:
    invoked = [together.begin(CHAT, HELLO, **{"x-request-id": "mine"}) for _ in range(AT_ONCE)]
    for each in invoked:
        each.answer()
    names = {(line["requestId"], line["trace"], line["id"]) for line in together.process.requests}
    assert {(each.id, each.trace_id, "mine") for each in invoked} <= names


def test_one_that_leaves_disturbs_no_other(together: OwnRuntime) -> None:
    leaving, *staying = [together.begin(CHAT, ENDLESS) for _ in range(AT_ONCE)]
    leaving.stop_after = 3
    leaving.stopped.wait(PATIENCE_SECONDS)
    for stream in staying:
        assert events(http_answer(stream.answer()).body)
    assert together.health()["running"] == 0


@pytest.mark.parametrize("event", NO_REQUESTS)
def test_an_invocation_that_fails_disturbs_no_other(together: OwnRuntime, event: object) -> None:
    stream = together.begin(CHAT, ENDLESS)
    assert together.api.send(event).answer().what == "error"
    assert together.post(CHAT, {}).status == 400
    assert events(http_answer(stream.answer()).body)


def test_a_poller_that_ends_lets_the_others_finish_what_they_have(
    tiny_artifact: Path, directory: Path
) -> None:
    with own_runtime(tiny_artifact, directory, 2) as runtime:
        stream = runtime.begin(CHAT, ENDLESS)
        stream.chunk()
        runtime.api.send(HELLO | {"max_tokens": 1}, refused_with=500)
        assert http_answer(stream.answer()).body.endswith(b"data: [DONE]\n\n")
        assert runtime.process.wait() == 1
    assert runtime.process.output.splitlines()[-1].startswith("Kindling ends: ")


def test_sigterm_lets_all_finish_what_they_have(tiny_artifact: Path, directory: Path) -> None:
    with own_runtime(tiny_artifact, directory, AT_ONCE) as runtime:
        streams = [runtime.begin(CHAT, ENDLESS) for _ in range(AT_ONCE - 1)]
        for stream in streams:
            stream.chunk()
        runtime.process.popen.send_signal(signal.SIGTERM)
        for stream in streams:
            assert http_answer(stream.answer()).body.endswith(b"data: [DONE]\n\n")
        assert runtime.process.wait() == 0
    assert "Traceback" not in runtime.process.output


@pytest.mark.parametrize("concurrency", [1, AT_ONCE])
def test_sigterm_ends_the_process_whichever_of_its_threads_takes_it(
    tiny_artifact: Path, directory: Path, concurrency: int
) -> None:
    """The kernel chooses one; only in the main thread does it end a wait for the network."""
    with own_runtime(tiny_artifact, directory, concurrency) as runtime:
        runtime.health()
        wait_until(lambda: runtime.api.asked_for)
        pid = runtime.process.popen.pid
        *_, another = sorted(int(each.name) for each in Path(f"/proc/{pid}/task").iterdir())
        assert another != pid
        assert CDLL(None).tgkill(pid, another, signal.SIGTERM) == 0
        assert runtime.process.wait() == 0


def test_connections_that_all_die_lose_no_later_invocation(
    tiny_artifact: Path, directory: Path
) -> None:
    with own_runtime(tiny_artifact, directory, AT_ONCE) as runtime:
        for stream in [runtime.begin(CHAT, ENDLESS) for _ in range(AT_ONCE)]:
            stream.chunk()
        runtime.api.cut_all()
        later = [runtime.begin(CHAT, HELLO) for _ in range(3 * AT_ONCE)]
        assert {http_answer(invoked.answer()).status for invoked in later} == {200}


def test_more_than_slots_and_queue_hold_are_told_to_come_again(
    tiny_artifact: Path, directory: Path
) -> None:
    limits = {"KINDLING_SLOTS": "1", "KINDLING_QUEUE_LIMIT": "1"}
    with own_runtime(tiny_artifact, directory, AT_ONCE, variables=limits) as runtime:
        invoked = [runtime.begin(CHAT, ENDLESS) for _ in range(AT_ONCE)]
        statuses = sorted(http_answer(each.answer()).status for each in invoked)
    assert statuses[0] == 200
    assert statuses[-1] == 429


def test_memory_grows_with_the_slots_and_not_with_the_concurrency(
    demo_artifact: Path, directory: Path
) -> None:
    """A copy of the model would be 100 MB and its cache 180 MB; a poller is a thread."""

    slots = {"KINDLING_SLOTS": "2"}

    def megabytes(concurrency: int) -> float:
        with own_runtime(demo_artifact, directory, concurrency, variables=slots) as runtime:
            many = [runtime.begin(CHAT, STREAMED | question(number)) for number in range(32)]
            assert {http_answer(each.answer()).status for each in many} == {200}
            return rss_mb(runtime.process.popen.pid)

    assert megabytes(16) - megabytes(2) < 20
