"""`docker login` and `docker push`, as deploy/aws/image.py makes them, with Docker itself."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from deploy.aws import image
from deploy.aws.errors import DeployError
from deploy.aws.repository import Repository
from tests.images.docker import LAMBDA, docker
from tests.support.registry import PASSWORD, USER, Registry, registry

SMALL = "kindling-push-test"


@dataclass(frozen=True)
class OnThisMachine:
    """A deploy.aws.repository.Repository without ECR behind it."""

    registry: Registry
    password: str = PASSWORD

    @property
    def uri(self) -> str:
        return f"{self.registry.address}/kindling"

    def digest(self, tag: str) -> str | None:
        return self.registry.digest(f"kindling:{tag}")

    def login(self) -> tuple[str, str, str]:
        return self.registry.address, USER, self.password


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))  # no login of ours stays behind
    with registry() as made:
        yield made


@pytest.fixture
def small(tmp_path: Path) -> Iterator[str]:
    """An image of one file: what is pushed is not what these tests are about."""
    (tmp_path / "Dockerfile").write_text("FROM scratch\nCOPY Dockerfile /\n")
    docker("build", "--tag", SMALL, str(tmp_path))
    yield SMALL
    docker("rmi", "--force", image.inspect(SMALL).id)


def repository(local: Registry, password: str = PASSWORD) -> Repository:
    return cast("Repository", OnThisMachine(local, password))


def test_an_image_arrives_as_one_manifest_with_all_that_it_names(
    local: Registry, small: str
) -> None:
    uri = image.push(image.inspect(small), repository(local))
    (manifest,) = local.manifests.values()
    assert uri == f"{local.address}/kindling@{local.digest(*local.manifests)}"
    named = json.loads(manifest)
    assert "manifests" not in named  # Lambda takes no index
    assert {named["config"]["digest"], *(layer["digest"] for layer in named["layers"])} == {
        *local.blobs
    }


def test_the_same_image_is_not_pushed_again(local: Registry, small: str) -> None:
    first = image.push(image.inspect(small), repository(local))
    assert image.push(image.inspect(small), repository(local, "no longer")) == first


def test_a_login_that_fails_says_what_docker_said(local: Registry, small: str) -> None:
    with pytest.raises(DeployError, match="docker login` failed: "):
        image.push(image.inspect(small), repository(local, "wrong"))
    assert not local.manifests


def test_the_lambda_image_is_known_by_its_architecture() -> None:
    machine = platform.machine()
    assert image.inspect(LAMBDA).architecture == {"aarch64": "arm64"}.get(machine, machine)
