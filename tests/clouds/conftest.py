"""Servers that several tests share; a test that ends or overloads one starts its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.servers import Cloud, CloudRun, Lambda, cloud_run, lambda_emulator


@pytest.fixture(scope="session")
def tiny_cloud_run(tiny_artifact: Path, directory: Path) -> Iterator[CloudRun]:
    with cloud_run(tiny_artifact, directory) as server:
        yield server


@pytest.fixture(scope="session")
def tiny_lambda(tiny_artifact: Path, directory: Path) -> Iterator[Lambda]:
    with lambda_emulator(tiny_artifact, directory) as emulator:
        yield emulator


@pytest.fixture(scope="session")
def demo_cloud_run(demo_artifact: Path, directory: Path) -> Iterator[CloudRun]:
    with cloud_run(demo_artifact, directory) as server:
        yield server


@pytest.fixture(scope="session")
def demo_lambda(demo_artifact: Path, directory: Path) -> Iterator[Lambda]:
    with lambda_emulator(demo_artifact, directory) as emulator:
        yield emulator


@pytest.fixture(params=["tiny_cloud_run", "tiny_lambda"])
def cloud(request: pytest.FixtureRequest) -> Cloud:
    """Both clouds on the tiny model, one after the other."""
    server: Cloud = request.getfixturevalue(request.param)
    return server
