"""The words of the Makefile that start an image."""

from __future__ import annotations

import os
import signal
import subprocess

import httpx

from tests.images.docker import DOCKER, INVOCATIONS, ROOT
from tests.support.servers import free_port, wait_until


def test_make_lambda_image_answers_behind_the_emulator_until_ctrl_c() -> None:
    port = free_port()
    command = ["make", "lambda-image", f"PORT={port}", f"DOCKER={DOCKER}"]
    event = {"messages": [{"role": "user", "content": "What is the capital of Japan?"}]}
    with (
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True
        ) as make,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=120) as client,
    ):
        wait_until(lambda: _answers(client))
        answer = client.post(INVOCATIONS, json=event | {"temperature": 0}).json()
        os.killpg(make.pid, signal.SIGINT)  # as a terminal does: to all that it started
        make.wait()
        assert not _answers(client)
    assert answer["choices"][0]["message"]["content"] == "The capital of Japan is Tokyo."


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/").status_code < 500
    except httpx.TransportError:
        return False
