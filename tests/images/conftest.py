"""The built images. Their absence is a failure, never a skip."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.images.docker import CLOUD_RUN, LAMBDA, copied_model, docker


@pytest.fixture(scope="session", autouse=True)
def images() -> None:
    for image in (LAMBDA, CLOUD_RUN):
        try:
            docker("image", "inspect", image)
        except (RuntimeError, FileNotFoundError) as error:
            pytest.exit(f"These tests run what `make images` builds, with Docker: {error}", 1)


@pytest.fixture(scope="session")
def baked_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model out of the image: outside of it, the same files give the same answers."""
    return copied_model(LAMBDA, tmp_path_factory.mktemp("baked"))
