"""The built images. Their absence is a failure, never a skip."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.docker import CLOUD_RUN, LAMBDA, copied_model, docker
from tests.images.tiny_recipes import MODELS, add_recipe, build_images, copied_context


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


@pytest.fixture(scope="session")
def tiny_images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Both images of each tiny model, tagged with its recipe's name. They are removed again."""
    context = copied_context(tmp_path_factory.mktemp("context"))
    for name in MODELS:
        add_recipe(context, name)
    for name in MODELS:
        build_images(context, name)
    yield
    docker("rmi", *(f"{image}:{name}" for image in (LAMBDA, CLOUD_RUN) for name in MODELS))
