"""The tag by which Kindling knows the stacks and repositories that it has made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deploy.aws.errors import DeployError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

TAG = {"Key": "made-by", "Value": "kindling"}


def check(tags: Collection[Mapping[str, str]], what: str) -> None:
    """Raises DeployError when the tag is not among them; `what` names what they are of."""
    if TAG not in tags:
        raise DeployError(f"There is a {what} already that Kindling has not made.")
