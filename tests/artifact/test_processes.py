"""Processes that fetch: killed, several at once, and serving."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from handlers.artifact.parallel_read import THREADS
from tests.artifact.conftest import PART, WEIGHTS
from tests.support.lambda_runtime import own_runtime
from tests.support.object_servers import PLACES, Fault, Place
from tests.support.servers import (
    AWSLAMBDARIC,
    OWN_RUNTIME,
    PATIENCE_SECONDS,
    ROOT,
    cloud_run,
    cloud_run_process,
    free_port,
    lambda_emulator,
    wait_until,
)

DATA = "model.onnx.data"
FETCH = f"""
import sys
from handlers.artifact import parallel_read
parallel_read.PART_BYTES = {PART}
from handlers.artifact.download import fetch
artifact, weights = fetch(sys.argv[1])
weights.result()
print(artifact.directory)
"""
CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4, "temperature": 0}


def fetching(place: Place) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, place.uri],
        cwd=ROOT,
        env=os.environ | dict(place.environ),
        stdout=subprocess.PIPE,
        text=True,
    )


def directory_of(process: subprocess.Popen[str]) -> Path:
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return Path(output.strip())


def test_what_a_killed_process_fetched_its_successor_need_not(web: Place, cache: Path) -> None:
    web.proxy.faults.append(Fault(DATA, skip=20, times=100, seconds=60))

    def written() -> int:
        return sum(path.stat().st_size for path in cache.rglob(f"{DATA}.part"))

    with fetching(web) as first:
        wait_until(lambda: written() >= (20 - THREADS) * PART)
        first.send_signal(signal.SIGKILL)
        first.communicate()
    had = written()
    web.proxy.faults.clear()
    web.proxy.requests.clear()
    with fetching(web) as second:
        assert (directory_of(second) / DATA).read_bytes() == WEIGHTS
    assert web.proxy.fetched(DATA) == len(WEIGHTS) - had
    assert web.proxy.fetched("tokenizer.json") == 0


def test_of_processes_that_start_together_one_fetches(web: Place) -> None:
    web.proxy.faults.append(Fault(DATA, times=100, seconds=0.05))
    with fetching(web) as first, fetching(web) as second, fetching(web) as third:
        directories = {directory_of(process) for process in (first, second, third)}
    assert len(directories) == 1
    assert (directories.pop() / DATA).read_bytes() == WEIGHTS
    assert web.proxy.fetched(DATA) == len(WEIGHTS)


@pytest.fixture(params=PLACES)
def served(request: pytest.FixtureRequest, tiny_artifact: Path) -> Iterator[Place]:
    with PLACES[request.param]() as place:
        place.upload(tiny_artifact)
        yield place


def test_a_server_answers_with_a_fetched_model_as_with_one_on_its_disk(
    served: Place, tiny_artifact: Path, directory: Path, cache: Path
) -> None:
    with cloud_run(tiny_artifact, directory) as server:
        expected = server.post("/v1/chat/completions", CHAT).json()["choices"]
        assert "source" not in server.health()["load_ms"]
    variables = {**served.environ, "MODEL_URI": served.uri}
    with cloud_run(Path("nowhere"), directory, **variables) as server:
        assert server.post("/v1/chat/completions", CHAT).json()["choices"] == expected
        assert server.health()["load_ms"]["source"] > 0
    assert list(cache.rglob(DATA))


def test_a_function_on_lambda_answers_with_a_fetched_model(
    web: Place, tiny_artifact: Path, directory: Path
) -> None:
    web.upload(tiny_artifact)
    with lambda_emulator(Path("nowhere"), directory, MODEL_URI=web.uri) as emulator:
        answer = emulator.post("/v1/chat/completions", CHAT)
        assert answer.status == 200
        assert answer.json()["usage"]["completion_tokens"] > 0


def test_a_server_whose_model_cannot_be_fetched_ends_with_one_line(
    web: Place, directory: Path, tiny_artifact: Path
) -> None:
    web.proxy.faults.append(Fault("manifest.json", status=403))
    with cloud_run_process(tiny_artifact, directory, free_port(), MODEL_URI=web.uri) as process:
        assert process.wait() == 1
    assert process.output == (
        f"Kindling cannot start: {web.uri}/manifest.json may not be read. Kindling sends no "
        f"credentials over https: use s3:// or gs:// for what is not public.\n"
    )


def test_weights_that_fail_to_arrive_end_the_process_too(
    web: Place, directory: Path, tiny_artifact: Path
) -> None:
    web.upload(tiny_artifact)
    web.put(DATA, (tiny_artifact / DATA).read_bytes()[::-1])
    with cloud_run_process(tiny_artifact, directory, free_port(), MODEL_URI=web.uri) as process:
        assert process.wait() == 1
    assert "Kindling cannot start:" in process.output
    assert "sha256 differs" in process.output


@pytest.mark.parametrize("command", [OWN_RUNTIME, AWSLAMBDARIC], ids=["own", "awslambdaric"])
def test_a_start_that_fails_does_not_wait_for_what_is_still_fetched(
    web: Place, directory: Path, tiny_artifact: Path, tmp_path: Path, command: Sequence[str]
) -> None:
    web.upload(with_a_broken_tokenizer(tiny_artifact, tmp_path / "broken"))
    over = threading.Event()

    def hold() -> None:
        over.wait(2 * PATIENCE_SECONDS)

    web.proxy.faults.append(Fault(DATA, times=100, before=hold))
    variables = {**web.environ, "MODEL_URI": web.uri}
    with own_runtime(Path("nowhere"), directory, 1, command, variables) as runtime:
        runtime.api.start_errors.get(timeout=PATIENCE_SECONDS)
        assert runtime.process.wait() == 1
    assert web.proxy.fetched(DATA) > 0
    over.set()


def with_a_broken_tokenizer(artifact: Path, copy: Path) -> Path:
    shutil.copytree(artifact, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    for name, info in manifest["files"].items():
        if "tokenizer" in name:
            (copy / name).write_bytes(b"{}")
            info |= {"size": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def test_without_obstore_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    program = """
import sys
sys.modules["obstore"] = None
from handlers.errors import FetchError
try:
    from handlers.artifact.download import fetch
except FetchError as error:
    print(error)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "MODEL_URI needs the package obstore" in done.stdout
