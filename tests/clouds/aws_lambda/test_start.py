"""Starts that come before any request: snapshots and provisioned concurrency, on both runtimes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from handlers.api.http import Request, Response
from handlers.artifact.manifest import Task
from handlers.aws_lambda.snapstart import prime
from handlers.config import Settings
from handlers.errors import StartupError
from tests.clouds.aws_lambda.test_runtime import CHAT, HELLO
from tests.support.encoder_tasks import ENCODER_TASKS
from tests.support.invocations import RESTORE_CUTS, Cut
from tests.support.lambda_runtime import OwnRuntime, own_runtime
from tests.support.servers import AWSLAMBDARIC, OWN_RUNTIME, PATIENCE_SECONDS, ROOT, wait_until

SNAP_START = {"AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}
PROVISIONED = {"AWS_LAMBDA_INITIALIZATION_TYPE": "provisioned-concurrency"}

both = pytest.mark.parametrize("command", [OWN_RUNTIME, AWSLAMBDARIC], ids=["own", "awslambdaric"])


def messages(runtime: OwnRuntime) -> list[str]:
    lines = runtime.process.output.splitlines()
    return [json.loads(line)["message"] for line in lines if line.startswith("{")]


def cold(runtime: OwnRuntime, count: int = 2) -> list[str | None]:
    answers = [runtime.post(CHAT, HELLO) for _ in range(count)]
    wait_until(lambda: len(runtime.process.requests) == count)
    marked = [answer.headers.get("x-kindling-cold") for answer in answers]
    assert [line["cold"] for line in runtime.process.requests] == [bool(mark) for mark in marked]
    return marked


@both
def test_a_generation_has_run_before_the_snapshot_and_a_copy_serves(
    tiny_artifact: Path, directory: Path, command: Sequence[str]
) -> None:
    with own_runtime(tiny_artifact, directory, command=command, variables=SNAP_START) as runtime:
        assert runtime.api.restoring.wait(PATIENCE_SECONDS)
        assert messages(runtime) == ["ready", "primed"]
        before = runtime.api.connections
        time.sleep(0.3)  # what a copy must not count as its own time
        restored = time.monotonic()
        runtime.api.restored.set()
        assert runtime.health()["uptime_seconds"] < time.monotonic() - restored
        assert messages(runtime)[:3] == ["ready", "primed", "restored"]
        assert runtime.api.connections > before


@both
def test_the_first_request_of_a_copy_is_cold(
    tiny_artifact: Path, directory: Path, command: Sequence[str]
) -> None:
    with own_runtime(tiny_artifact, directory, command=command, variables=SNAP_START) as runtime:
        runtime.api.restored.set()
        assert cold(runtime) == ["true", None]


@both
def test_provisioned_concurrency_primes_and_no_request_is_cold(
    tiny_artifact: Path, directory: Path, command: Sequence[str]
) -> None:
    with own_runtime(tiny_artifact, directory, command=command, variables=PROVISIONED) as runtime:
        assert cold(runtime) == [None, None]
        assert messages(runtime)[:2] == ["ready", "primed"]


@both
def test_a_start_that_a_request_waits_for_primes_nothing(
    tiny_artifact: Path, directory: Path, command: Sequence[str]
) -> None:
    with own_runtime(tiny_artifact, directory, command=command) as runtime:
        assert cold(runtime) == ["true", None]
        assert "primed" not in messages(runtime)


def test_many_at_once_are_primed_too(tiny_artifact: Path, directory: Path) -> None:
    with own_runtime(tiny_artifact, directory, 2, variables=PROVISIONED) as runtime:
        assert cold(runtime) == [None, None]


def test_an_api_key_does_not_keep_priming_out(tiny_artifact: Path, directory: Path) -> None:
    key = {"KINDLING_API_KEY": "secret"}
    with own_runtime(tiny_artifact, directory, variables=PROVISIONED | key) as runtime:
        assert runtime.post(CHAT, HELLO).status == 401
        assert messages(runtime)[:2] == ["ready", "primed"]


@pytest.mark.parametrize("task", ENCODER_TASKS)
def test_encoders_are_primed(tiny_encoders: dict[Task, Path], directory: Path, task: Task) -> None:
    with own_runtime(tiny_encoders[task], directory, variables=PROVISIONED) as runtime:
        assert runtime.health()["task"] == task
        assert messages(runtime)[:2] == ["ready", "primed"]


def test_a_restore_that_never_comes_ends_the_process(tiny_artifact: Path, directory: Path) -> None:
    with own_runtime(tiny_artifact, directory, variables=SNAP_START) as runtime:
        assert runtime.api.restoring.wait(PATIENCE_SECONDS)
        runtime.api.close()
        assert runtime.process.wait() == 1
    assert runtime.process.output.splitlines()[-1].startswith("Kindling ends: ")


@pytest.mark.parametrize("where", RESTORE_CUTS, ids=lambda where: where.value)
def test_a_connection_that_dies_with_the_snapshot_is_opened_again(
    tiny_artifact: Path, directory: Path, where: Cut
) -> None:
    with own_runtime(tiny_artifact, directory, variables=SNAP_START) as runtime:
        runtime.api.cut(where)
        runtime.api.restored.set()
        assert runtime.health()["state"] == "ready"
        assert runtime.api.all_cut


RESTORE_THAT_FAILS = """
from handlers.aws_lambda import snapstart
from handlers.aws_lambda.runtime.__main__ import main

def after_restore(service):
    raise RuntimeError("no copy of this one")

snapstart.after_restore = after_restore
main()
"""


def test_a_copy_that_cannot_serve_is_reported_as_one(tiny_artifact: Path, directory: Path) -> None:
    failing = (sys.executable, "-c", RESTORE_THAT_FAILS)
    with own_runtime(tiny_artifact, directory, command=failing, variables=SNAP_START) as runtime:
        runtime.api.restored.set()
        kind, body = runtime.api.restore_errors.get(timeout=PATIENCE_SECONDS)
        assert runtime.process.wait() == 1
    assert (kind, json.loads(body)["errorType"]) == ("Runtime.RuntimeError", "RuntimeError")


class Answering:
    """Every request gets the next one of these."""

    task = "text-generation"

    def __init__(self, *statuses: int) -> None:
        self.statuses = iter(statuses)

    async def handle(self, _request: Request) -> Response:
        return Response(next(self.statuses), {}, b"")


@pytest.mark.parametrize("statuses", [(500,), (400,), (200, 500), (200, 200, 500)])
def test_a_model_that_does_not_answer_is_an_error_of_the_start(statuses: Sequence[int]) -> None:
    api = Answering(*statuses)
    service: Any = SimpleNamespace(api=api, settings=Settings.from_environ({}))
    with pytest.raises(StartupError, match="does not answer"):
        prime(service)


def test_the_first_schema_after_a_snapshot_finds_everything_imported(tiny_artifact: Path) -> None:
    environ = os.environ | {"MODEL_DIR": str(tiny_artifact), "KINDLING_THREADS": "1"}
    command = [sys.executable, "-c", IMPORT_WITH_A_SCHEMA]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=True)
    assert json.loads(done.stderr) == []


IMPORT_WITH_A_SCHEMA = """
import os, sys
import msgspec
from handlers.api.http import run_sync
from handlers.api.http import Request
from handlers.config import Settings
from handlers.aws_lambda.snapstart import prime
from handlers.startup import load_service

service = load_service(Settings.from_environ())
prime(service)
before = set(sys.modules)
schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "boolean"}}}
messages = [{"role": "user", "content": "Hello"}]
for path, body in (
    ("/v1/chat/completions", {"messages": messages, "response_format": schema, "max_tokens": 1}),
    ("/v1/responses", {"input": "Hello", "max_output_tokens": 1}),
):
    request = Request("POST", path, {}, {}, msgspec.json.encode(body))
    assert run_sync(service.api.handle(request)).status == 200
os.write(2, msgspec.json.encode(sorted(set(sys.modules) - before)))
"""

# What a snapshot copies of a process is its memory, and so does a fork. One thread, since a fork
# takes no other along.
SAMPLE_IN_TWO_COPIES = """
import os, sys
import msgspec
from handlers.api.http import run_sync
from handlers.api.http import Request
from handlers.config import Settings
from handlers.aws_lambda.snapstart import after_restore, prime
from handlers.startup import load_service

service = load_service(Settings.from_environ())
prime(service)
for copy in range(2):
    child = os.fork()
    if child == 0:
        after_restore(service)
        for seed in (None, 1):
            chat = {"messages": [{"role": "user", "content": "Hello"}], "temperature": 1.5,
                    "max_tokens": 30, "ignore_eos": True, "seed": seed}
            request = Request("POST", "/v1/chat/completions", {}, {}, msgspec.json.encode(chat))
            os.write(2, run_sync(service.api.handle(request)).body + b"\\n")
        os._exit(0)
    os.waitpid(child, 0)
"""


def test_two_copies_of_a_snapshot_do_not_say_the_same(tiny_artifact: Path) -> None:
    environ = os.environ | {"MODEL_DIR": str(tiny_artifact), "KINDLING_THREADS": "1"}
    command = [sys.executable, "-c", SAMPLE_IN_TWO_COPIES]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, check=True)
    free, seeded, other_free, other_seeded = map(json.loads, done.stderr.splitlines())
    assert text(free) != text(other_free)
    assert len({answer["id"] for answer in (free, seeded, other_free, other_seeded)}) == 4
    assert text(seeded) == text(other_seeded)


def text(answer: dict[str, Any]) -> str:
    return str(answer["choices"][0]["message"]["content"])
