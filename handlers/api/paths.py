"""Paths as text: what may stand before and between their parts. Knows no route.

Called by table.py and routes.py, and by aws_lambda/events.py for what API Gateway puts there.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import dropwhile


def without_empty_parts(path: str) -> str:
    """The path with one slash between its parts and none behind them."""
    return "/" + "/".join(filter(None, path.split("/")))


def without_prefix(path: str, prefix: str) -> str:
    """The path without `prefix`, where it begins with it and a part of the path ends there."""
    return path[len(prefix) :] if f"{path}/".startswith(f"{prefix}/") else path


def other_spellings(path: str) -> Iterator[str]:
    """Yields a path without empty parts with /v1 once, and without it."""
    rest = "/".join(dropwhile("v1".__eq__, path.split("/")[1:]))
    yield f"/v1/{rest}"
    yield f"/{rest}"
