"""The JSON Schema Test Suite: schemas, each with instances that are valid under it or not.

https://github.com/json-schema-org/JSON-Schema-Test-Suite, MIT. The PyPI package asdf carries it
beside its copy of the jsonschema library; nothing of asdf is imported.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Group:
    """One schema of the suite."""

    name: str
    """"file: description"."""
    schema: dict[str, Any]
    tests: list[dict[str, Any]]
    """`description`, `data`, `valid`."""


def draft_2020_12() -> Iterator[Group]:
    """Draft 2020-12, formats included, without the groups whose schema is just true or false."""
    package = importlib.util.find_spec("asdf")
    assert package is not None
    assert package.origin is not None
    suite = Path(package.origin).parent / "_jsonschema" / "json" / "tests" / "draft2020-12"
    for path in sorted([*suite.glob("*.json"), *suite.glob("optional/format/*.json")]):
        for group in json.loads(path.read_text(encoding="utf-8")):
            if isinstance(group["schema"], dict):
                name = f"{path.stem}: {group['description']}"
                yield Group(name, group["schema"], group["tests"])
