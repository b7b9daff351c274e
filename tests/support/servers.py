"""Both clouds as real processes on this machine: uvicorn, and AWS's Lambda emulator.

Each takes an HttpCall and gives back an HttpAnswer, so that one test can ask both.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.aws_events import Event, HttpCall, function_url

ROOT = Path(__file__).parent.parent.parent
EMULATOR = ROOT / "build" / "aws-lambda-rie"
INVOCATIONS = "/2015-03-31/functions/function/invocations"

AWSLAMBDARIC = (sys.executable, "-m", "awslambdaric", "handlers.aws_lambda.handler")
OWN_RUNTIME = (sys.executable, "-m", "handlers.aws_lambda.runtime")

# Between the prelude and the body of what RESPONSE_STREAM mode takes.
NULS = bytes(8)

# Only ends a test that would never end; nothing is measured by it.
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class HttpAnswer:
    """An answer, whichever cloud it came through."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Process:
    """A process of ours and what it wrote."""

    popen: subprocess.Popen[bytes]
    output_file: Path

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The log's lines of requests, among the rest of the output."""
        lines = [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]
        return [line for line in lines if "status" in line]

    def wait(self) -> int:
        """The exit status."""
        return self.popen.wait(PATIENCE_SECONDS)


@dataclass(frozen=True)
class CloudRun:
    """uvicorn with functions-framework, as the image runs it."""

    process: Process
    client: httpx.Client

    @property
    def url(self) -> str:
        return str(self.client.base_url)

    def send(self, call: HttpCall) -> HttpAnswer:
        answer = self.client.request(
            call.method,
            call.path,
            content=call.body,
            headers=dict(call.headers),
            params=dict(call.query),
        )
        return HttpAnswer(answer.status_code, answer.headers, answer.content)

    def post(self, path: str, body: object, **headers: str) -> HttpAnswer:
        return self.send(HttpCall("POST", path, json.dumps(body).encode(), headers))

    def health(self) -> Any:
        return self.send(HttpCall("GET", "/healthz")).json()


@dataclass(frozen=True)
class Lambda:
    """awslambdaric behind the Runtime Interface Emulator. One call at a time: two crash it."""

    process: Process
    client: httpx.Client

    def invoke(self, event: object) -> Any:
        """Returns what the handler returned, or the error that the runtime reports."""
        answer = self.client.post(INVOCATIONS, content=json.dumps(event))
        try:
            return answer.json()
        except ValueError:
            return answer.text

    def deliver(self, event: Event) -> HttpAnswer:
        """The HTTP answer to an HTTP event, whole or as our own runtime streams it."""
        content = self.client.post(INVOCATIONS, content=json.dumps(event)).content
        return streamed_answer(content) if NULS in content else whole_answer(json.loads(content))

    def send(self, call: HttpCall) -> HttpAnswer:
        return self.deliver(function_url(call))

    def post(self, path: str, body: object, **headers: str) -> HttpAnswer:
        return self.send(HttpCall("POST", path, json.dumps(body).encode(), headers))

    def health(self) -> Any:
        return self.send(HttpCall("GET", "/healthz")).json()


Cloud = CloudRun | Lambda


def streamed_answer(content: bytes) -> HttpAnswer:
    """Reads a stream's bytes as a function URL in RESPONSE_STREAM mode does."""
    head, nuls, body = content.partition(NULS)
    if not nuls:
        raise ValueError(f"A stream without its prelude: {content[:200]!r}")
    prelude = json.loads(head)
    return HttpAnswer(prelude["statusCode"], prelude["headers"], body)


def whole_answer(result: Any) -> HttpAnswer:
    """Reads a posted value as every other sender does."""
    headers = result.get("headers") or {
        name: values[-1] for name, values in result["multiValueHeaders"].items()
    }
    body = result["body"]
    content = base64.b64decode(body) if result["isBase64Encoded"] else body.encode()
    return HttpAnswer(result["statusCode"], headers, content)


@contextmanager
def cloud_run(model_dir: Path, directory: Path, **variables: str) -> Iterator[CloudRun]:
    """A server that accepts connections. Raises RuntimeError when it ends before it does."""
    port = free_port()
    with cloud_run_process(model_dir, directory, port, **variables) as process:
        _wait_for(port, process)
        with _client(port) as client:
            yield CloudRun(process, client)


@contextmanager
def cloud_run_process(
    model_dir: Path, directory: Path, port: int, **variables: str
) -> Iterator[Process]:
    """The process alone, whether it comes to serve or not."""
    command = [sys.executable, "-m", "handlers.cloud_run"]
    function = {"FUNCTION_TARGET": "handler", "FUNCTION_SOURCE": "handlers/cloud_run/function.py"}
    address = {"HOST": "127.0.0.1", "PORT": str(port)}
    with process_of(command, model_dir, directory, **function, **address, **variables) as process:
        yield process


@contextmanager
def lambda_emulator(
    model_dir: Path, directory: Path, runtime: Sequence[str] = AWSLAMBDARIC, /, **variables: str
) -> Iterator[Lambda]:
    """The emulator; the runtime's process starts with the first call."""
    port = free_port()
    command = [str(EMULATOR), "--runtime-interface-emulator-address", f"127.0.0.1:{port}"]
    command += ["--runtime-api-address", f"127.0.0.1:{free_port()}"]
    command += runtime
    with process_of(command, model_dir, directory, **variables) as process:
        _wait_for(port, process)
        with _client(port) as client:
            yield Lambda(process, client)


@contextmanager
def process_of(
    command: list[str], model_dir: Path, directory: Path, **variables: str
) -> Iterator[Process]:
    ours = ("KINDLING_", "AWS_", "FUNCTION_", "UVICORN_", "MODEL_", "HOST", "PORT")
    environ = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environ |= {"MODEL_DIR": str(model_dir), **variables}
    output_file = directory / f"{free_port()}.log"
    with (
        output_file.open("wb") as output,
        subprocess.Popen(
            command, cwd=ROOT, env=environ, stdout=output, stderr=subprocess.STDOUT
        ) as popen,
    ):
        try:
            yield Process(popen, output_file)
        finally:
            # Not killed: the emulator ends its child only when it is asked to end itself.
            popen.terminate()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _client(port: int) -> httpx.Client:
    return httpx.Client(
        base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS, trust_env=False
    )


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError("What the test waits for does not happen.")
        time.sleep(0.02)


def _wait_for(port: int, process: Process) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        if process.popen.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise RuntimeError(f"{process.popen.args!r} does not listen. It wrote:\n{process.output}")
