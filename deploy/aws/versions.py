"""The function's versions and the alias that chooses one: all calls to Lambda itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.aws.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Collection

    import boto3

ALIAS = "live"


def served(session: boto3.Session, name: str) -> str:
    """The version that the URL reaches. Raises DeployError when there is none."""
    client = session.client("lambda")
    try:
        version: str = client.get_alias(FunctionName=name, Name=ALIAS)["FunctionVersion"]
    except client.exceptions.ResourceNotFoundException as error:
        raise DeployError(f"There is no function {name} in {session.region_name}.") from error
    return version


def before(session: boto3.Session, name: str, version: str) -> str:
    """The newest version older than this one. Raises DeployError when there is none."""
    older = [number for number in _published(session, name) if number < int(version)]
    if not older:
        raise DeployError(f"There is no version before {version} to roll back to.")
    return str(max(older))


def keep(session: boto3.Session, name: str, kept: Collection[str | None]) -> None:
    """Deletes all other versions."""
    client = session.client("lambda")
    for number in _published(session, name):
        if str(number) not in kept:
            client.delete_function(FunctionName=name, Qualifier=str(number))


def _published(session: boto3.Session, name: str) -> list[int]:
    pages = session.client("lambda").get_paginator("list_versions_by_function")
    listed = [
        version["Version"]
        for page in pages.paginate(FunctionName=name)
        for version in page["Versions"]
    ]
    return [int(version) for version in listed if version != "$LATEST"]
