"""From the first process of a container to its end."""

from __future__ import annotations

import threading

from tests.images import docker
from tests.images.docker import CLOUD_RUN, READ_ONLY
from tests.support.event_stream import events, finish_reason
from tests.support.servers import wait_until

CHAT = "/v1/chat/completions"
ENDLESS = {
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 1900,
    "ignore_eos": True,
    "stream": True,
}


def test_sigterm_ends_an_idle_cloud_run_container_with_status_0() -> None:
    with docker.cloud_run(*READ_ONLY) as container:
        assert container.stop() == 0
        assert "Traceback" not in container.log


def test_sigterm_lets_a_stream_end_as_a_stream() -> None:
    received: list[str] = []
    with docker.cloud_run(*READ_ONLY, KINDLING_DRAIN_SECONDS="1") as container:
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


def test_sigterm_ends_lambdas_container_without_a_kill() -> None:
    with docker.aws_lambda(*READ_ONLY) as container:
        container.invoke({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1})
        assert container.stop() in (0, 143)
        assert "Traceback" not in container.log


def test_the_port_opens_only_once_the_model_is_loaded() -> None:
    """A model that cannot be loaded never opens it; one line says why, and the status is 1."""
    with docker.running(CLOUD_RUN, options=READ_ONLY, MODEL_DIR="/nowhere") as container:
        assert docker.docker("wait", container.id).strip() == "1"
        assert container.log.startswith("Kindling cannot start: ")
        assert len(container.log.splitlines()) == 1


def test_the_port_is_the_one_that_cloud_run_asks_for() -> None:
    with docker.cloud_run(*READ_ONLY, PORT="9090") as container:
        assert '"ready"' in container.ask("GET", "/healthz", port=9090)
        assert not container.is_listening(8080)


def test_a_failing_init_is_a_sentence_in_lambdas_log_and_not_a_traceback() -> None:
    with docker.aws_lambda(*READ_ONLY, MODEL_DIR="/nowhere") as container:
        error = container.invoke({"messages": []})
        assert error["errorType"] == "ArtifactError"
        assert error["errorMessage"].startswith("No model at /nowhere")
        assert 'File "' not in container.log
