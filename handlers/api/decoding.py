"""A request's JSON or query into a struct, with the field at fault named in the error.

Does not know which fields there are. Used by the endpoints.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, TypeVar

import msgspec

from handlers.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T", bound=msgspec.Struct)

Fields = dict[str, msgspec.Raw]
"""The body's members, each as its JSON."""


class Checked(msgspec.Struct, frozen=True):
    """A body that looks at members of its members, which msgspec would ignore."""

    @classmethod
    def check_members(cls, fields: Fields) -> None:
        """Raises InvalidRequest for a member that would change the answer and is not supported."""


Refused = dict[str, tuple[str, ...]]
"""Unsupported fields that would change the answer, each with the JSON that asks for nothing."""

# Of a member that is not known.
ASKS_FOR_NOTHING = ("null", "false", '""', "[]", "{}")
LONGEST_PATH = 256

# msgspec's "Expected `str`, got `int` - at `$.messages[0].content`", and of an object's names
# "at `key` in `$.logit_bias`". It calls the members of such an object [...].
_AT_PATH = re.compile(
    r"(?P<reason>.*) - at (`key` in )?`\$\.?(?P<path>.*?)(\[\.\.\..*)?`", re.DOTALL
)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")
_WHOLE = re.compile(r"(?P<digits>\d+)\.0+")
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def read_json(body: bytes, type_: type[T], refused: Refused) -> T:
    """Raises InvalidRequest, with `param` where one field is at fault."""
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        body.decode()  # msgspec does not look into the fields that it skips
        fields = msgspec.json.decode(body, type=Fields)
        present = {name: fields[name] for name in refused.keys() & fields.keys()}
        for name, value in present.items():
            _refuse(name, _plain(value), refused[name])
        if issubclass(type_, Checked):
            type_.check_members(fields)
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        raise _wrong_field(error) from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The body is not UTF-8: see byte {error.start}.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(_not_json(body, error)) from None


def refuse_unknown(field: str, value: msgspec.Raw, known: Iterable[str]) -> None:
    """Raises InvalidRequest where an object has members besides `known` that ask for something."""
    members = members_of(value)
    for name in sorted(members.keys() - set(known)):
        if _plain(members[name]) not in ASKS_FOR_NOTHING:
            raise _not_supported(f"{field}.{name}"[:LONGEST_PATH])


def members_of(value: msgspec.Raw | None) -> Fields:
    """None of what is no object: the decoder says so."""
    try:
        return msgspec.json.decode(value or b"{}", type=Fields)
    except msgspec.ValidationError:
        return {}


def read_query(query: Mapping[str, str], type_: type[T], refused: Refused) -> T:
    """As read_json; numbers and booleans are read from their text."""
    for name in refused.keys() & query.keys():
        _refuse(name, query[name], refused[name])
    try:
        return msgspec.convert(dict(query), type_, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong_field(error) from None


def _plain(value: msgspec.Raw) -> str:
    """The JSON without white space, and a whole number without its fraction: 1.0 is 1."""
    text = msgspec.json.format(value, indent=-1).decode()
    whole = _WHOLE.fullmatch(text)
    return whole["digits"] if whole else text


def _refuse(name: str, value: str, harmless: tuple[str, ...]) -> None:
    if value != "null" and value not in harmless:
        raise _not_supported(name)


def _not_supported(field: str) -> InvalidRequest:
    return InvalidRequest(f"{field} is not supported by this server: leave it out.", param=field)


def _wrong_field(error: msgspec.ValidationError) -> InvalidRequest:
    found = _AT_PATH.fullmatch(str(error))
    reason, path = (found["reason"], found["path"]) if found else (str(error), "")
    missing = _MISSING.fullmatch(reason)
    if missing:
        path = f"{path}.{missing['field']}".lstrip(".")
        return InvalidRequest(f"{path} is required.", param=path)
    if not path:
        return InvalidRequest(f"The body is not what this path takes: {reason}.")
    return InvalidRequest(f"{path}: {reason}.", param=path)


def _not_json(body: bytes, error: msgspec.DecodeError) -> str:
    if not body:
        return "The body is empty: send a JSON object."
    return f"The body is not JSON: {why_not_json(body, error)}."


def why_not_json(text: bytes, error: Exception) -> str:
    """msgspec's reason, but for half of a surrogate pair: there it says that the end is missing."""
    if _HALF_PAIR.search(text):
        return r"a \u escape may be half of a surrogate pair"
    return str(error)
