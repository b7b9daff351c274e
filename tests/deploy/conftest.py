"""An empty AWS account, which moto's server keeps, and the commands run against it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import boto3
import botocore.loaders
import botocore.session
import pytest

from deploy.aws import image
from deploy.aws.__main__ import main
from tests.deploy.docker_stand_in import Docker
from tests.support.moto_stacks import CREDENTIALS, REGION, moto_server

LOADER = botocore.loaders.create_loader()


class Account:
    """One account in one region, through boto3 alone."""

    def __init__(self, docker: Docker, session: boto3.Session) -> None:
        self.docker = docker
        self.client: Callable[[str], Any] = session.client

    def run(self, *arguments: str) -> None:
        main([*arguments, "--region", REGION])

    def function(self, version: str = "$LATEST") -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.client("lambda").get_function(
            FunctionName="kindling", Qualifier=version
        )
        return found

    @property
    def configuration(self) -> Mapping[str, Any]:
        """The configuration of the version that is served."""
        configuration: Mapping[str, Any] = self.function(self.served)["Configuration"]
        return configuration

    @property
    def served(self) -> str:
        alias = self.client("lambda").get_alias(FunctionName="kindling", Name="live")
        return str(alias["FunctionVersion"])

    @property
    def versions(self) -> list[str]:
        listed = self.client("lambda").list_versions_by_function(FunctionName="kindling")
        return [found["Version"] for found in listed["Versions"] if found["Version"] != "$LATEST"]

    @property
    def code(self) -> str:
        """The hash of the image that the served version was made of.

        Not its URI: what moto keeps of that is shared by all versions.
        """
        return str(self.configuration["CodeSha256"])


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Account]:
    # Each session would read AWS's descriptions of its services anew, a second for each test.
    monkeypatch.setattr(botocore.session, "create_loader", lambda *_: LOADER)
    with moto_server() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        for name, value in CREDENTIALS.items():
            monkeypatch.setenv(name.upper(), value)
        session = boto3.Session(region_name=REGION)
        docker = Docker(session.client("ecr"))
        monkeypatch.setattr(image, "docker", docker)
        yield Account(docker, session)
