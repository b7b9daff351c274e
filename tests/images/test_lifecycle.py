"""From the first process of a container to its end."""

from __future__ import annotations

import threading

import pytest

from tests.images import docker
from tests.images.docker import CLOUD_RUN, OFFLINE, READ_ONLY
from tests.support.event_stream import events, finish_reason
from tests.support.servers import wait_until

SANDBOX = (*OFFLINE, *READ_ONLY)
CHAT = "/v1/chat/completions"
ENDLESS = {
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 1900,
    "ignore_eos": True,
    "stream": True,
}


def test_sigterm_ends_an_idle_cloud_run_container_with_status_0() -> None:
    with docker.cloud_run(*SANDBOX) as container:
        assert container.stop() == 0
        assert "Traceback" not in container.log


def test_sigterm_lets_a_stream_end_as_a_stream() -> None:
    received: list[str] = []
    with docker.cloud_run(*SANDBOX, KINDLING_DRAIN_SECONDS="1") as container:
        client = threading.Thread(
            target=lambda: received.append(container.ask("POST", CHAT, ENDLESS))
        )
        client.start()
        wait_until(lambda: '"running":1' in container.ask("GET", "/healthz"))
        # To the process alone: `docker stop` could end the client's own in between.
        docker.docker("kill", "--signal", "TERM", container.id)
        assert docker.docker("wait", container.id).strip() == "0"
        client.join()
        assert "Traceback" not in container.log
    assert finish_reason(events(received[0].encode())) == "length"


# Finds the one process that the emulator has started, and ends it.
TERMINATE = """
import os, pathlib, signal
for entry in pathlib.Path("/proc").glob("[0-9]*"):
    words = (entry / "cmdline").read_bytes().split(b"\\0")[:3]
    if b"awslambdaric" in words or b"handlers.aws_lambda.runtime" in words:
        os.kill(int(entry.name), signal.SIGTERM)
        print(entry.name)
"""


@pytest.mark.parametrize("runtime", [(), docker.OWN_RUNTIME], ids=["awslambdaric", "own"])
def test_sigterm_ends_lambdas_container_and_its_process_while_it_waits(
    runtime: tuple[str, ...],
) -> None:
    """The platform may send it to the process alone."""
    hello = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    with docker.aws_lambda(*SANDBOX, runtime=runtime) as container:
        container.invoke(hello)
        [process] = container.python(TERMINATE).split()
        exists = f"import os; print(os.path.exists('/proc/{process}'))"
        wait_until(lambda: container.python(exists) == "False\n")
        assert container.stop() == 0
        assert "Traceback" not in container.log


def test_a_model_that_cannot_be_loaded_ends_the_container_with_a_line() -> None:
    with docker.running(CLOUD_RUN, options=SANDBOX, MODEL_DIR="/nowhere") as container:
        assert docker.docker("wait", container.id).strip() == "1"
        assert container.log.startswith("Kindling cannot start: ")
        assert len(container.log.splitlines()) == 1


def test_a_port_that_is_open_has_a_model_behind_it() -> None:
    with docker.running(CLOUD_RUN, options=SANDBOX) as container:
        while not container.is_listening():
            pass
        assert '"state":"ready"' in container.ask("GET", "/healthz")


def test_the_port_is_the_one_that_cloud_run_asks_for() -> None:
    with docker.cloud_run(*SANDBOX, PORT="9090") as container:
        assert '"ready"' in container.ask("GET", "/healthz", port=9090)
        assert not container.is_listening(8080)


def test_a_failing_init_is_a_sentence_in_lambdas_log_and_not_a_traceback() -> None:
    with docker.aws_lambda(*SANDBOX, MODEL_DIR="/nowhere") as container:
        error = container.invoke({"messages": []})
        assert error["errorType"] == "ArtifactError"
        assert error["errorMessage"].startswith("No model at /nowhere")
        assert 'File "' not in container.log
