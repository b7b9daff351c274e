"""Docker, as far as deploy/aws/image.py talks to it: one image, and a push into moto's ECR."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from deploy.aws.errors import DeployError


class Docker:
    """Takes the place of `deploy.aws.image.docker`; tests change `built`, every tag's content."""

    def __init__(self, ecr: Any) -> None:
        self.ecr = ecr
        self.built = b"one"
        self.architecture = "amd64"
        self.tagged: dict[str, str] = {}
        self.logins: list[tuple[str, ...]] = []
        self.pushes: list[str] = []

    def __call__(self, *arguments: str, data: str = "", is_shown: bool = False) -> str:
        assert is_shown == (arguments[0] == "push")
        match arguments:
            case ("image", "inspect", name) if name.partition(":")[0] == "kindling-lambda":
                digest = hashlib.sha256(self.built).hexdigest()
                return json.dumps([{"Id": f"sha256:{digest}", "Architecture": self.architecture}])
            case ("login", "--username", user, "--password-stdin", registry):
                self.logins.append((registry, user, data))
            case ("tag", name, target) if name.partition(":")[0] == "kindling-lambda":
                self.tagged[target] = self.built.decode()
            case ("push", target) if target in self.tagged:
                self.pushes.append(target)
                self._push(target)
            case _:
                raise DeployError(f"docker {' '.join(arguments)}: no such thing")
        return ""

    def _push(self, target: str) -> None:
        repository, _, tag = target.partition("/")[2].partition(":")
        layer = f"sha256:{hashlib.sha256(self.tagged[target].encode()).hexdigest()}"
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "config": {"digest": layer},
            "layers": [{"digest": layer}],  # moto makes the image's digest of these
        }
        self.ecr.put_image(
            repositoryName=repository, imageManifest=json.dumps(manifest), imageTag=tag
        )
