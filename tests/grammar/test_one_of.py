"""Branches of a `oneOf` count as disjoint only where no value fits two of them."""

from __future__ import annotations

from typing import Any

import pytest

from handlers.grammar.schema.one_of import are_disjoint

Schema = dict[str, Any]


def tagged(kind: str | float, *required: str) -> Schema:
    """An object whose `kind` has this value, where it has one."""
    return {"type": "object", "properties": {"kind": {"const": kind}}, "required": list(required)}


DISJOINT: dict[str, list[Schema]] = {
    "all require the tag": [tagged("a", "kind"), tagged("b", "kind"), tagged("c", "kind")],
    "all but one require the tag": [tagged("a", "kind"), tagged("b"), tagged("c", "kind")],
    "other types": [{"type": "string"}, {"type": ["integer", "null"]}],
    "other values": [{"const": 1}, {"enum": ["1", True]}],
}
OVERLAPPING: dict[str, list[Schema]] = {
    "neither requires the tag, so that {} fits both": [tagged("a"), tagged("b")],
    "two of three do not require the tag": [tagged("a", "kind"), tagged("b"), tagged("c")],
    "another property is required": [tagged("a", "name"), tagged("b", "name")],
    "one tag": [tagged("a", "kind"), tagged("a", "kind")],
    "tags that JSON takes as equal": [tagged(1, "kind"), tagged(1.0, "kind")],
    "no tag in one": [tagged("a", "kind"), {"type": "object", "required": ["kind"]}],
    "types that share integers": [{"type": "integer"}, {"type": "number"}],
    "a value beside its type": [{"const": "a"}, {"type": "string"}],
    "nothing said": [{}, {"type": "string"}],
}


@pytest.mark.parametrize("name", DISJOINT)
def test_no_value_fits_two_branches(name: str) -> None:
    assert are_disjoint(DISJOINT[name])


@pytest.mark.parametrize("name", OVERLAPPING)
def test_a_value_may_fit_two_branches(name: str) -> None:
    assert not are_disjoint(OVERLAPPING[name])
