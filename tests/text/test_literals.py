"""Literals of Python as JSON: what a model writes for arguments, piece by piece."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.text.arguments.json_object import JsonObject
from handlers.text.arguments.literals import PYTHON, Literals, literal_json
from handlers.text.arguments.tagged import value_json
from handlers.text.marks import Mark
from tests.support.cuts import cut, places

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=8,
)


def in_json(value: Any) -> Any:
    """The value as JSON has it: a tuple is a list, and a key is a string."""
    return json.loads(json.dumps(value))


@given(value=values)
def test_what_python_writes_is_read(value: Any) -> None:
    found = literal_json(repr(value))
    assert found is not None
    assert json.loads(found) == in_json(value)


@given(value=values, places=places)
def test_arguments_do_not_depend_on_the_cut(value: Any, places: list[float]) -> None:
    text = f"a={value!r}, b={[value]!r}) and so on"
    reader = Literals(PYTHON, Mark(")"))

    written, rest = "", ""
    for piece in cut(text, places):
        if rest:
            rest += piece
            continue
        part, after = reader.push(piece)
        written, rest = written + part, after or ""

    assert json.loads(written) == in_json({"a": value, "b": [value]})
    assert rest == ") and so on"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[1, 2,]", [1, 2]),
        ("(1,)", [1]),
        ("{}", {}),
        ("{1: 'a', 'b': {'c': ()}}", {"1": "a", "b": {"c": []}}),
        ("[True, False, None, true, null]", [True, False, None, True, None]),
        (
            r"'\x41\u00e9\U0001f98a\101\0\'\"\\\n\q\xzz\u12'",
            "A\u00e9\U0001f98aA\0'\"\\\n\\q\\xzz\\u12",
        ),
        ("'''it's \"so\"'''", 'it\'s "so"'),
        ("''", ""),
        ("+1_000", 1000),
        (".5", 0.5),
        ("1e3", 1e3),
    ],
)
def test_a_literal_of_python_is_json(text: str, expected: Any) -> None:
    found = literal_json(text)
    assert found is not None
    assert json.loads(found) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "Paris", "[Paris]", "{a: 1}", "1, 2", "1]", "[1", "{'a'}", "'a' 'b'", "nan"),
        *("'a", "f(1)", "[1)", "{'a' 1}", "'a'.b", "x='a'", "[" * 1000, "9" * 400 + "_0"),
    ],
)
def test_any_other_text_is_none(text: str) -> None:
    assert literal_json(text) is None


@given(text=st.text("[]{}()'\"\\,:=1aN\n ", max_size=30), places=places)
def test_no_text_raises_and_what_is_read_is_json(text: str, places: list[float]) -> None:
    found = literal_json(text)
    if found is not None:
        json.loads(found)
    json.loads(value_json(text))
    reader = Literals(PYTHON, Mark(")"))
    for piece in cut(text, places):
        _, rest = reader.push(piece)
        if rest is not None:
            break
    else:
        reader.finish()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": "b\nc\td"}', {"a": "b\nc\td"}),
        (r'{"a": "\d+\\ \/ \"x\" it\'s"}', {"a": r'\d+\ / "x" it' + "'s"}),
        ('{"a": "\\\n"}', {"a": "\\\n"}),
        (r'{"}": ["{", {"\\": "\u00e9"}]}', {"}": ["{", {"\\": "é"}]}),
    ],
)
def test_mistakes_in_the_strings_of_json_are_put_right(text: str, expected: Any) -> None:
    for pieces in ([text], list(text)):
        reader = JsonObject()
        read = [reader.push(piece) for piece in pieces]
        assert json.loads("".join(piece for piece, _ in read)) == expected
        assert [rest for _, rest in read] == [None] * (len(read) - 1) + [""]
