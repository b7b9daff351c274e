"""The three commands, each as its few steps. Called by __main__.py, with a boto3 session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from deploy.aws import image, release, stack, versions
from deploy.aws.errors import DeployError
from deploy.aws.repository import Repository

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import boto3

# Parameters that no one sets: deploy knows the first two by the image, the third is roll_back's.
FOUND_OUT = {"ImageUri", "Architecture", "ServedVersion"}


def deploy(
    session: boto3.Session, name: str, local_image: str, settings: Mapping[str, str], again: bool
) -> str:
    """The function's URL, once the new version is served.

    The version that was served until now is kept, for roll_back; older ones are deleted, since
    SnapStart charges for each that exists.
    """
    known = release.parameters()
    _refuse_unknown(settings, known.keys() - FOUND_OUT)
    built = image.inspect(local_image)
    before = stack.parameters(session, name)
    served = versions.served(session, name) if before else None
    uri = image.push(built, Repository.ensure(session, name))
    kept = {key: value for key, value in before.items() if key in known}
    chosen = {**known, **kept, **settings}
    chosen |= {"ImageUri": uri, "Architecture": built.architecture, "ServedVersion": ""}
    if served and before.get("UrlAuthType") == "NONE" != chosen["UrlAuthType"]:
        _close_url(session, name, before, served)
    stack.apply(session, name, release.template(chosen, again=again), chosen)
    url = stack.outputs(session, name)["Url"]
    now = versions.served(session, name)
    if now != served:
        _keep(session, name, {served, now}, url)
    return url


def roll_back(session: boto3.Session, name: str) -> str:
    """The version that is served now: the newest before the one that was.

    Through the stack, whose parameter it is, so that the next deployment starts from the truth. The
    URL stays as it is, so this raises DeployError for a version that was made for another: without
    the key it would let everyone in, with the other client nobody could read its answers.
    """
    before = versions.before(session, name, versions.served(session, name))
    changed = versions.differences(session, name, before)
    if changed:
        raise DeployError(
            f"Version {before} has another {' and '.join(changed)} than the URL is made for. "
            "Deploy its image with the settings that it shall have."
        )
    chosen = {**stack.parameters(session, name), "ServedVersion": before}
    stack.apply(session, name, None, chosen)
    return before


def delete(session: boto3.Session, name: str) -> None:
    """All that deploy made. The function's log goes too; a secret or a bucket is not ours."""
    stack.delete(session, name)
    Repository.delete(session, name)


def _refuse_unknown(settings: Collection[str], known: Collection[str]) -> None:
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise DeployError(
            f"--set takes no {', '.join(unknown)}. It takes {', '.join(sorted(known))}."
        )


def _keep(session: boto3.Session, name: str, kept: Collection[str | None], url: str) -> None:
    """Prunes old versions; what cannot be deleted does not fail the deployment."""
    try:
        versions.keep(session, name, kept)
    except ClientError as error:
        raise DeployError(
            f"{url} is deployed, but older versions are still there: {error}"
        ) from error


def _close_url(session: boto3.Session, name: str, before: Mapping[str, str], served: str) -> None:
    """The URL takes signatures alone while the version with the key is still served.

    In one update the alias moves first, and what asks for no key would answer everyone until the
    URL follows. If the deployment fails after this, nobody gets in until there is another.
    """
    closed = {"UrlAuthType": "AWS_IAM", "ApiKeySecret": "", "ServedVersion": served}
    stack.apply(session, name, None, {**before, **closed})
