"""Refuses or leaves out what cannot be enforced of a schema, by whether the schema is strict."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from handlers.errors import InvalidRequest, quoted, shortened

if TYPE_CHECKING:
    from collections.abc import Callable

    from handlers.grammar.schema.references import Path

OMITTED = object()
"""Stands for a part of a schema that is left out."""


class Strictness:
    """The strictness of one schema, asked about each part that cannot be enforced."""

    def __init__(self, strict: bool, report: Callable[[str], None]) -> None:
        """`report` is called with each part that is left out of a schema that is not strict."""
        self.strict = strict
        self.report = report

    def refuse_or_omit(self, path: Path, what: str, rest: object = OMITTED) -> object:
        """Reports `what` and returns `rest` in its place. Raises InvalidRequest if strict."""
        if self.strict:
            raise schema_error(path, f"{what} is not supported")
        self.report(what)
        return rest


def schema_error(path: Path, reason: str) -> InvalidRequest:
    """Returns the error that refuses a strict schema for the part at `path`."""
    names = [each for before, each in pairwise(path) if before == "properties"]
    where = f"property {shown(names[-1])}: " if names else ""
    return InvalidRequest(
        f"The JSON schema cannot be used: {where}{reason}. Leave that out, or send the schema "
        "without strict: true.",
        param=_dotted(path) or None,
    )


def shown(value: object) -> str:
    """Returns a client's value as errors and the log show it: only the type of a list or object."""
    if isinstance(value, str):
        return quoted(value)
    is_plain = value is None or isinstance(value, int | float)
    return shortened(repr(value)) if is_plain else type(value).__name__


def _dotted(path: Path) -> str:
    """Returns the path as an error's `param` has it: properties.amount.anyOf[1]."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
