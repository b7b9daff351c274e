"""The demo model behind both clouds, and no network for the clients that ask it."""

from __future__ import annotations

import asyncio
import importlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.support.openai_clients import openai_client
from tests.support.servers import Cloud, CloudRun, Lambda, cloud_run, lambda_emulator
from tests.support.thinking_artifact import thinking_copy

# Read when the clients are imported: prices from litellm's own package, traces to nobody.
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LANGSMITH_TRACING": "false"}
os.environ["NO_PROXY"] = "localhost,127.0.0.1"


@pytest.fixture(scope="package", autouse=True)
def _only_this_machine() -> Iterator[None]:
    """No client may call home, be it for prices, encodings or telemetry."""
    others: list[object] = []
    look_up = socket.getaddrinfo

    def local(host: Any, *rest: Any, **named: Any) -> Any:
        if host not in {"127.0.0.1", "localhost"}:
            others.append(host)
            raise OSError(f"A client wants to talk to {host}.")
        return look_up(host, *rest, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", local)
        yield
    assert others == []


@pytest.fixture(scope="package")
def server(demo_artifact: Path, directory: Path) -> Iterator[CloudRun]:
    with cloud_run(demo_artifact, directory) as server:
        yield server


@pytest.fixture(scope="package")
def function(demo_artifact: Path, directory: Path) -> Iterator[Lambda]:
    with lambda_emulator(demo_artifact, directory) as emulator:
        yield emulator


@pytest.fixture
def full_server(demo_artifact: Path, directory: Path) -> Iterator[CloudRun]:
    """One that wants the key "secret", and whose one slot is taken."""
    limits = {"KINDLING_SLOTS": "1", "KINDLING_QUEUE_LIMIT": "0", "KINDLING_CONTEXT_LENGTH": "8192"}
    with (
        cloud_run(demo_artifact, directory, KINDLING_API_KEY="secret", **limits) as server,
        openai_client(server, "secret") as client,
        client.completions.create(
            model="any", prompt="Once", stream=True, extra_body={"ignore_eos": True}
        ) as stream,
    ):
        next(stream)
        yield server


@pytest.fixture(params=["server", "function"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """Both clouds, one after the other."""
    cloud: Cloud = request.getfixturevalue(request.param)
    return cloud


@pytest.fixture(scope="package")
def thinking_artifact(demo_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return thinking_copy(demo_artifact, tmp_path_factory.mktemp("thinking") / "model")


@pytest.fixture(scope="package")
def thinking_server(thinking_artifact: Path, directory: Path) -> Iterator[CloudRun]:
    with cloud_run(thinking_artifact, directory) as server:
        yield server


@pytest.fixture(scope="package")
def thinking_function(thinking_artifact: Path, directory: Path) -> Iterator[Lambda]:
    with lambda_emulator(thinking_artifact, directory) as emulator:
        yield emulator


@pytest.fixture(params=["thinking_server", "thinking_function"])
def thinker(request: pytest.FixtureRequest) -> Cloud:
    """Both clouds, one after the other."""
    cloud: Cloud = request.getfixturevalue(request.param)
    return cloud


@pytest.fixture(scope="package")
def litellm() -> Iterator[ModuleType]:
    """By its name, when a test asks: importing it takes seconds, and so does checking its types."""
    # Its plain calls take the thread's event loop, or make one that nobody closes.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield importlib.import_module("litellm")
    asyncio.set_event_loop(None)
    loop.close()
