"""The three commands, each as its few steps. Called by __main__.py, with a boto3 session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.aws import image, release, stack, versions
from deploy.aws.errors import DeployError
from deploy.aws.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Mapping

    import boto3


def deploy(
    session: boto3.Session, name: str, local_image: str, settings: Mapping[str, str], again: bool
) -> str:
    """The function's URL, once the new version is served.

    The version that was served until now is kept, for roll_back; older ones are deleted, since
    SnapStart charges for each that exists.
    """
    known = release.parameters()
    unknown = sorted(settings.keys() - known.keys())
    if unknown:
        raise DeployError(
            f"template.yaml has no {', '.join(unknown)}. It has {', '.join(sorted(known))}."
        )
    built = image.inspect(local_image)
    uri = image.push(built, Repository.ensure(session, name))
    before = stack.parameters(session, name)
    served = versions.served(session, name) if before else None
    kept = {key: value for key, value in before.items() if key in known}
    chosen = {**known, **kept, **settings}
    chosen |= {"ImageUri": uri, "Architecture": built.architecture, "ServedVersion": ""}
    stack.apply(session, name, release.template(chosen, again=again), chosen)
    versions.keep(session, name, {served, versions.served(session, name)})
    return stack.outputs(session, name)["Url"]


def roll_back(session: boto3.Session, name: str) -> str:
    """The version that is served now: the newest before the one that was.

    Through the stack, whose parameter it is, so that the next deployment starts from the truth.
    """
    before = versions.before(session, name, versions.served(session, name))
    chosen = {**stack.parameters(session, name), "ServedVersion": before}
    stack.apply(session, name, None, chosen)
    return before


def delete(session: boto3.Session, name: str) -> None:
    """All that deploy made. The function's log goes too; a secret or a bucket is not ours."""
    stack.delete(session, name)
    Repository.delete(session, name)
