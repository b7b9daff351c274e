"""The function's versions and the alias that chooses one: all calls to Lambda itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deploy.aws.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import boto3

ALIAS = "live"
API_KEY = "KINDLING_API_KEY"


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


def differences(session: boto3.Session, name: str, version: str) -> list[str]:
    """Lists where this version differs from the parameters of the stack, and so from its URL.

    The function itself, unpublished, is what the parameters made of it last.
    """
    client = session.client("lambda")
    made, now = (
        client.get_function_configuration(FunctionName=name, Qualifier=qualifier)
        for qualifier in (version, "$LATEST")
    )
    key, key_now = (_api_key(found) for found in (made, now))
    differs = {
        "UrlAuthType": (key is None) != (key_now is None),
        "API key": key != key_now and None not in {key, key_now},
        "RuntimeClient": _command(made) != _command(now),
    }
    return [word for word, is_so in differs.items() if is_so]


def keep(session: boto3.Session, name: str, kept: Collection[str | None]) -> None:
    """Deletes all other versions."""
    client = session.client("lambda")
    for number in _published(session, name):
        if str(number) not in kept:
            client.delete_function(FunctionName=name, Qualifier=str(number))


def _api_key(configuration: Mapping[str, Any]) -> str | None:
    key: str | None = configuration.get("Environment", {}).get("Variables", {}).get(API_KEY)
    return key


def _command(configuration: Mapping[str, Any]) -> list[str]:
    """The command, where it is not the image's own: empty lists and none are the same."""
    config = configuration.get("ImageConfigResponse", {}).get("ImageConfig", {})
    return [*config.get("EntryPoint", []), *config.get("Command", [])]


def _published(session: boto3.Session, name: str) -> list[int]:
    pages = session.client("lambda").get_paginator("list_versions_by_function")
    listed = [
        version["Version"]
        for page in pages.paginate(FunctionName=name)
        for version in page["Versions"]
    ]
    return [int(version) for version in listed if version != "$LATEST"]
