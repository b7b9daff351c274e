"""A release: the template, filled in for what is deployed.

A version of a function never changes, so CloudFormation publishes one only for a resource that is
new. Each release therefore has a resource of its own, named after the template and all parameters:
the same deployment again is no change, and any other is a version.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping

TEMPLATE = Path(__file__).with_name("template.yaml")
# Its resource's name in the file, and a word in the function's description.
PLACE = "VersionOfRelease"


def template(chosen: Mapping[str, str], *, again: bool = False) -> str:
    """The template with this release's name in it. `again`: under a name that was never used."""
    text = TEMPLATE.read_text()
    parts = [text, chosen, time.time_ns() if again else None]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return text.replace(PLACE, f"Version{digest[:12]}")


def parameters() -> dict[str, str]:
    """The template's parameters with their defaults; ImageUri, which has none, is empty."""
    described: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)["Parameters"]  # noqa: S506
    return {name: str(parameter.get("Default", "")) for name, parameter in described.items()}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # yaml has no types
    """Reads past CloudFormation's own tags, !Ref and the rest."""


_Loader.add_multi_constructor("!", lambda _loader, _tag, node: node.value)
