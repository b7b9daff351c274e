"""Stacks and repositories that somebody else made are neither changed nor deleted."""

from __future__ import annotations

import json

import pytest

from tests.deploy.conftest import Account

BUCKET = {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": "precious"}}


def buckets(account: Account) -> list[str]:
    return [found["Name"] for found in account.client("s3").list_buckets()["Buckets"]]


@pytest.mark.parametrize("command", ["deploy", "delete"])
def test_anothers_stack_is_left_alone(account: Account, command: str) -> None:
    template = json.dumps({"Resources": {"Bucket": BUCKET}})
    account.client("cloudformation").create_stack(StackName="prod", TemplateBody=template)
    with pytest.raises(SystemExit, match="a stack prod already that Kindling has not made"):
        account.run(command, "prod")
    assert buckets(account) == ["precious"]
    assert account.client("ecr").describe_repositories()["repositories"] == []


@pytest.mark.parametrize("command", ["deploy", "delete"])
def test_anothers_repository_is_left_alone(account: Account, command: str) -> None:
    ecr = account.client("ecr")
    ecr.create_repository(repositoryName="web")
    with pytest.raises(SystemExit, match="a repository web already that Kindling has not made"):
        account.run(command, "web")
    with pytest.raises(ecr.exceptions.LifecyclePolicyNotFoundException):
        ecr.get_lifecycle_policy(repositoryName="web")
