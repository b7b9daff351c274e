"""The repository in ECR: all calls to it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deploy.aws import ownership

if TYPE_CHECKING:
    import boto3

# Versions keep what they were made of, but one that slept for weeks is made anew from its image.
KEPT_IMAGES = 10


@dataclass(frozen=True)
class Repository:
    """One that exists."""

    client: Any
    name: str
    uri: str

    @classmethod
    def ensure(cls, session: boto3.Session, name: str) -> Repository:
        """The repository, created if need be: tags never move, and the oldest images go.

        Raises DeployError for one that is not ours.
        """
        client = session.client("ecr")
        found = _describe(client, name)
        if found is None:
            made = client.create_repository(
                repositoryName=name, imageTagMutability="IMMUTABLE", tags=[ownership.TAG]
            )
            found = made["repository"]
        uri = found["repositoryUri"]
        client.put_lifecycle_policy(repositoryName=name, lifecyclePolicyText=json.dumps(_LIFECYCLE))
        client.set_repository_policy(repositoryName=name, policyText=json.dumps(_policy(session)))
        return cls(client, name, uri)

    @staticmethod
    def delete(session: boto3.Session, name: str) -> None:
        """The repository with its images; it is no error if there is none."""
        client = session.client("ecr")
        if _describe(client, name) is not None:
            client.delete_repository(repositoryName=name, force=True)

    def digest(self, tag: str) -> str | None:
        """sha256:... of the manifest under a tag."""
        try:
            found = self.client.describe_images(
                repositoryName=self.name, imageIds=[{"imageTag": tag}]
            )
        except self.client.exceptions.ImageNotFoundException:
            return None
        digest: str = found["imageDetails"][0]["imageDigest"]
        return digest

    def login(self) -> tuple[str, str, str]:
        """Registry, user and password, which hold for twelve hours."""
        granted = self.client.get_authorization_token()["authorizationData"][0]
        user, _, password = base64.b64decode(granted["authorizationToken"]).decode().partition(":")
        return self.uri.partition("/")[0], user, password


def _describe(client: Any, name: str) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = client.describe_repositories(repositoryNames=[name])
    except client.exceptions.RepositoryNotFoundException:
        return None
    repository: dict[str, Any] = found["repositories"][0]
    tags = client.list_tags_for_resource(resourceArn=repository["repositoryArn"])["tags"]
    ownership.check(tags, f"repository {name}")
    return repository


_LIFECYCLE = {
    "rules": [
        {
            "rulePriority": 1,
            "description": f"Keep the newest {KEPT_IMAGES}.",
            "selection": {
                "tagStatus": "any",
                "countType": "imageCountMoreThan",
                "countNumber": KEPT_IMAGES,
            },
            "action": {"type": "expire"},
        }
    ]
}


def _policy(session: boto3.Session) -> dict[str, Any]:
    """Lambda may read the image, for functions of this account and region.

    https://docs.aws.amazon.com/lambda/latest/dg/images-create.html#configuration-images-permissions
    """
    account = session.client("sts").get_caller_identity()["Account"]
    partition = session.get_partition_for_region(session.region_name)
    function = f"arn:{partition}:lambda:{session.region_name}:{account}:function:*"
    statement = {
        "Sid": "LambdaReadsTheImage",
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": ["ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"],
        "Condition": {"StringLike": {"aws:SourceArn": function}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}
