"""The image: what Docker says of it, and its way into ECR. Runs Docker's own command line."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.aws.errors import DeployError

if TYPE_CHECKING:
    from deploy.aws.repository import Repository

DOCKER = os.environ.get("DOCKER") or "docker"
STDERR = 2
# Docker's words -> Lambda's.
ARCHITECTURES = {"amd64": "x86_64", "arm64": "arm64"}


@dataclass(frozen=True)
class Image:
    """One that is built on this machine."""

    name: str
    id: str
    """sha256:..., of its configuration and so of all that is in it."""
    architecture: str
    """As Lambda calls it."""

    @property
    def tag(self) -> str:
        """A tag of the image's content, so that the same image is pushed once."""
        return self.id.removeprefix("sha256:")[:12]


def inspect(name: str) -> Image:
    """Raises DeployError when there is no such image, or none that Lambda takes."""
    try:
        described: dict[str, Any] = json.loads(docker("image", "inspect", name))[0]
    except DeployError as error:
        raise DeployError(
            f"There is no image {name} here: `make images` builds it. {error}"
        ) from error
    architecture = described["Architecture"]
    if architecture not in ARCHITECTURES:
        raise DeployError(f"{name} is built for {architecture}; Lambda takes amd64 or arm64.")
    return Image(name, described["Id"], ARCHITECTURES[architecture])


def push(image: Image, repository: Repository) -> str:
    """The image's URI by its digest, pushed unless the repository has it."""
    pushed = repository.digest(image.tag)
    if pushed is None:
        registry, user, password = repository.login()
        docker("login", "--username", user, "--password-stdin", registry, data=password)
        target = f"{repository.uri}:{image.tag}"
        docker("tag", image.name, target)
        docker("push", target, is_shown=True)
        pushed = repository.digest(image.tag)
    if pushed is None:
        raise DeployError(f"Docker pushed {image.name}, but {repository.uri} does not have it.")
    return f"{repository.uri}@{pushed}"


def docker(*arguments: str, data: str = "", is_shown: bool = False) -> str:
    """Returns what the command prints, also to stderr if it `is_shown`, since a push takes minutes.

    Raises DeployError with its complaint when it fails.
    """
    command = [DOCKER, *arguments]
    output = STDERR if is_shown else subprocess.PIPE
    try:
        done = subprocess.run(
            command, input=data, stdout=output, stderr=subprocess.PIPE, text=True, check=False
        )
    except FileNotFoundError as error:
        raise DeployError(f"There is no {DOCKER}: install Docker, or name it in DOCKER.") from error
    if done.returncode != 0:
        raise DeployError(f"`{DOCKER} {arguments[0]}` failed: {done.stderr.strip()}")
    return done.stdout or ""
