"""The composition root, in this process."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from handlers import startup
from handlers.artifact.manifest import Task
from handlers.config import Settings
from handlers.engine.engine import Engine
from handlers.errors import ArtifactError, SettingsError
from handlers.startup import load_service, process_age_ms
from tests.support.baking import bake_copy

ROOT = Path(__file__).parent.parent.parent


def test_a_service_is_loaded_whole(tiny_artifact: Path) -> None:
    settings = Settings.from_environ({"MODEL_DIR": str(tiny_artifact), "KINDLING_SLOTS": "2"})
    service = load_service(settings)
    assert service.settings is settings
    assert isinstance(service.engine, Engine)
    assert (service.engine.slots, service.engine.running) == (2, 0)


BEGIN_ON_CLOUD_RUN = """
from handlers import startup
from handlers.config import Settings

startup.start_loading(Settings.from_environ())

async def load():  # as the server does: signals are its event loop's
    import handlers.cloud_run.function

import asyncio
asyncio.run(load())
"""


def log_of_a_start(
    artifact: Path, capsys: pytest.CaptureFixture[str], context_length: int = 256
) -> list[dict[str, Any]]:
    environ = {"MODEL_DIR": str(artifact), "KINDLING_CONTEXT_LENGTH": str(context_length)}
    load_service(Settings.from_environ(environ))
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_the_log_says_how_many_tokens_of_a_prompt_are_baked(
    tiny_artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (ready,) = log_of_a_start(tiny_artifact, capsys)
    assert (ready["message"], ready["baked_tokens"]) == ("ready", 0)
    baked = bake_copy(tiny_artifact, tmp_path / "baked", "You are a lighthouse keeper.")
    (ready,) = log_of_a_start(baked, capsys)
    assert ready["baked_tokens"] > 10
    refusal, ready = log_of_a_start(baked, capsys, context_length=16)
    assert refusal["level"] == "WARNING"
    assert refusal["message"].startswith("The baked prefix is not used: it has ")
    assert (ready["message"], ready["baked_tokens"]) == ("ready", 0)


@pytest.mark.parametrize(
    "start",
    ["from handlers.aws_lambda import handler", BEGIN_ON_CLOUD_RUN],
    ids=["lambda", "cloud run"],
)
def test_what_a_start_has_made_is_no_garbage_to_look_for_and_later_garbage_is(
    tiny_artifact: Path, start: str
) -> None:
    report = (
        "import gc, sys\nsys.stderr.write(f'{gc.get_freeze_count() > 10_000} {gc.isenabled()}')"
    )
    assert run(f"{start}\n{report}", tiny_artifact) == "True True"


def test_garbage_is_looked_for_again_after_a_start_that_failed(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ImportError("numpy")

    monkeypatch.setattr(startup, "_import_engine", fail)
    with pytest.raises(ImportError):
        load_service(Settings.from_environ({"MODEL_DIR": str(tiny_artifact)}))
    assert gc.isenabled()


def test_awslambdaric_refuses_to_stream(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINDLING_REST_API", "stream")
    refused = """
import sys
try:
    from handlers.aws_lambda import handler
except Exception as fault:
    sys.stderr.write(fault.msg)
"""
    assert run(refused, tiny_artifact).startswith("KINDLING_REST_API is stream, which awslambdaric")


def test_a_bug_at_the_start_is_not_taken_for_a_missing_handler(tiny_artifact: Path) -> None:
    """awslambdaric takes any AttributeError for a name that the package lacks."""
    broken = """
import sys
from handlers import startup
import handlers.aws_lambda

def load_service(_settings):
    raise AttributeError("no such thing as a bug")

startup.load_service = load_service
try:
    getattr(handlers.aws_lambda, "handler", None)
except Exception as error:
    sys.stderr.write(f"{type(error).__name__}: {error}")
"""
    reported = run(broken, tiny_artifact)
    assert reported == "RuntimeError: The function cannot be loaded: no such thing as a bug"


def test_a_missing_model_is_an_error_that_says_how_to_get_one(tmp_path: Path) -> None:
    settings = Settings.from_environ({"MODEL_DIR": str(tmp_path)})
    with pytest.raises(ArtifactError, match="Export one with `make export`"):
        load_service(settings)


def test_the_line_end_of_an_api_key_read_from_a_file_is_no_part_of_it() -> None:
    assert Settings.from_environ({"KINDLING_API_KEY": " secret\n"}).api_key == "secret"
    assert Settings.from_environ({"KINDLING_API_KEY": ""}).api_key is None


@pytest.mark.parametrize("show", [repr, str, lambda settings: [*settings.__rich_repr__()]])
def test_settings_that_are_printed_show_no_key(show: Callable[[Settings], object]) -> None:
    settings = Settings.from_environ({"KINDLING_API_KEY": "sesame"})
    assert "sesame" not in str(show(settings))
    assert "'***'" in str(show(settings))


@pytest.mark.parametrize("key", ["schlüssel", "two words", "tab\tbed", "\n"])
def test_an_api_key_that_no_header_could_carry_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(SettingsError, match="KINDLING_API_KEY must be") as refused:
        Settings.from_environ({"KINDLING_API_KEY": key})
    assert key not in str(refused.value)


def test_the_age_of_a_process_is_read_from_the_kernel(tmp_path: Path) -> None:
    age = process_age_ms()
    assert 0 < age <= process_age_ms()
    stat = tmp_path / "stat"
    fields = Path("/proc/self/stat").read_text().rpartition(") ")[2]
    stat.write_text(f"{os.getpid()} (a name) with (brackets)) {fields}")
    assert process_age_ms(stat) >= age


ANSWER_ON_LAMBDA = """
from handlers.aws_lambda import handler

class Context:
    aws_request_id = "1"

    def get_remaining_time_in_millis(self):
        return 60_000

chat = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
for fields in ({}, {"guided_regex": "a+"}, {"stream": True}):
    assert "error" not in handler(chat | fields, Context())
"""

ENCODE_ON_LAMBDA = """
import json
from handlers.aws_lambda import handler
from tests.support.aws_events import HttpCall, function_url

class Context:
    aws_request_id = "1"

    def get_remaining_time_in_millis(self):
        return 60_000

call = HttpCall("POST", {path!r}, json.dumps({body}).encode())
assert handler(function_url(call), Context())["statusCode"] == 200
"""

ANSWER_ON_CLOUD_RUN = """
import asyncio
import httpx
from functions_framework.aio import create_asgi_app

async def answer():
    transport = httpx.ASGITransport(create_asgi_app("handler", "handlers/cloud_run/function.py"))
    async with httpx.AsyncClient(transport=transport, base_url="http://kindling") as client:
        for _ in range(3):
            answer = await client.get("/generate?prompt=Hello&max_tokens=4")
            assert answer.status_code == 200

asyncio.run(answer())
"""

COUNT_NATIVE_THREADS = """
import sys, threading, time
from collections.abc import Callable
from pathlib import Path
from handlers import startup
from handlers.config import Settings

startup.start_loading(Settings.from_environ())
for thread in threading.enumerate():
    if thread is not threading.main_thread():
        thread.join()
time.sleep(0.2)  # the kernel ends a joined thread a moment later
sys.stderr.write(str(len(list(Path("/proc/self/task").iterdir())) - threading.active_count()))
"""

COUNT_SESSIONS = """
import sys
from handlers.engine.session import Session

loads = []
load = Session.__init__
Session.__init__ = lambda *names, **values: (loads.append(1), load(*names, **values))[1]
"""


def run(script: str, artifact: Path) -> str:
    """Returns what a process writes to standard error; the log goes to standard output."""
    environ = os.environ | {"MODEL_DIR": str(artifact)}
    command = [sys.executable, "-c", script]
    return subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    ).stderr


def test_answering_on_lambda_loads_no_torch_no_transformers_no_asyncio_and_no_openssl(
    tiny_artifact: Path,
) -> None:
    """asyncio costs tens of milliseconds of cold start that the inline engine never needs."""
    heavy = {"torch", "transformers", "optimum", "onnx", "asyncio", "functions_framework"}
    heavy |= {"_hashlib", "ssl"}
    report = f"import sys\nsys.stderr.write(' '.join({heavy} & set(sys.modules)) or 'none')"
    assert run(ANSWER_ON_LAMBDA + report, tiny_artifact) == "none"


@pytest.mark.parametrize(
    ("task", "path", "body"),
    [
        ("feature-extraction", "/v1/embeddings", {"input": ["Hello", "there"]}),
        ("text-classification", "/v1/classify", {"input": "Hello"}),
        ("text-ranking", "/v1/rerank", {"query": "Hello", "documents": ["there"]}),
    ],
)
def test_an_encoder_on_lambda_loads_no_asyncio_and_nothing_of_a_decoder(
    tiny_encoders: dict[Task, Path], task: Task, path: str, body: dict[str, object]
) -> None:
    heavy = {
        "torch",
        "asyncio",
        "jinja2",
        "handlers.text.chat_template",
        "handlers.engine.sampling",
    }
    report = f"import sys\nsys.stderr.write(' '.join({heavy} & set(sys.modules)) or 'none')"
    ask = ENCODE_ON_LAMBDA.format(path=path, body=body)
    assert run(ask + report, tiny_encoders[task]) == "none"


@pytest.mark.parametrize("answer_three", [ANSWER_ON_LAMBDA, ANSWER_ON_CLOUD_RUN])
def test_a_process_loads_its_model_once_however_often_it_answers(
    tiny_artifact: Path, answer_three: str
) -> None:
    report = "sys.stderr.write(f'{len(loads)} load')"
    assert run(COUNT_SESSIONS + answer_three + report, tiny_artifact) == "1 load"


def test_numpy_starts_no_threads_of_its_own(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OpenBLAS would start one for each further CPU."""
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    monkeypatch.setenv("KINDLING_THREADS", "1")
    assert run(COUNT_NATIVE_THREADS, tiny_artifact) == "0"


TIME_LEFT = """
import sys, time
from handlers.api.http import Response
from handlers.aws_lambda.function import SERVICE, handler
from tests.support.aws_events import HttpCall, function_url, http_api, rest_api

class Context:
    aws_request_id = "1"

    def get_remaining_time_in_millis(self):
        return 900_000

async def time_left(request):
    sys.stderr.write(f"{request.deadline - time.monotonic():.0f} s, ")
    return Response(200, {"content-type": "application/json"}, b"{}")

SERVICE.api.handle = time_left
for wrap in (function_url, http_api, rest_api):
    handler(wrap(HttpCall("GET", "/healthz")), Context())
"""


def test_an_answer_ends_two_seconds_before_lambda_or_its_gateway_gives_up(
    tiny_artifact: Path,
) -> None:
    assert run(TIME_LEFT, tiny_artifact) == "898 s, 28 s, 27 s, "
