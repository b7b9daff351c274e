"""A request's JSON or query into a struct, with the field at fault named in the error.

Does not know which fields there are. Used by the endpoints.
"""

from __future__ import annotations

import codecs
import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from handlers.api.unsupported_fields import INSTEAD
from handlers.errors import InvalidRequest, shortened

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
"""Unsupported fields that would change the answer, each with the JSON that asks for nothing.

What is empty asks for nothing whatever the field: EMPTY.
"""

EMPTY = ("null", '""', "[]", "{}")

ASKS_FOR_NOTHING = (*EMPTY, "false")
"""The JSON of a member that is not known, but asks for nothing."""

# msgspec's "Expected `str`, got `int` - at `$.messages[0].content`", and of an object's names
# "at `key` in `$.logit_bias`". It calls the members of such an object [...].
_AT_PATH = re.compile(
    r"(?P<reason>.*) - at (`key` in )?`\$\.?(?P<path>.*?)(\[\.\.\..*)?`", re.DOTALL
)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def read_json(body: bytes, type_: type[T], refused: Refused) -> T:
    """Reads a body. Raises InvalidRequest, with `param` where one field is at fault."""
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        body.decode()  # msgspec does not look into the fields that it skips
        fields = msgspec.json.decode(body, type=Fields)
        present = {name: fields[name] for name in refused.keys() & fields.keys()}
        for name, value in present.items():
            _refuse(name, _plain(value), refused[name])
        if issubclass(type_, Checked):
            type_.check_members(fields)
        return _decode(body, type_)
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
            raise _not_supported(f"{field}.{name}")


def members_of(value: msgspec.Raw | None) -> Fields:
    """The members of an object, none of what is no object, which the decoder refuses."""
    try:
        return msgspec.json.decode(value or b"{}", type=Fields)
    except msgspec.ValidationError:
        return {}


def _decode(body: bytes, type_: type[T]) -> T:
    """Decodes a body, and takes 16.0 for the integer that it is in JSON, as msgspec does not.

    Lua, R and some JavaScript write all numbers so. Only a body that has one is read again.
    """
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        if "got `float`" not in str(error):
            raise
    fields: dict[str, Any] = msgspec.json.decode(body)
    whole = {name: _whole(value) for name, value in fields.items()}
    return msgspec.convert(whole, type_, str_keys=True)


def _whole(value: Any) -> Any:
    """Puts integers for whole floats, not within objects: a JSON schema stays what it is."""
    if type(value) is list:
        # Without a call for each number: a body of 4 MB has a million of them.
        return [
            (int(part) if part.is_integer() else part) if type(part) is float else _whole(part)
            for part in value
        ]
    return int(value) if type(value) is float and value.is_integer() else value


def read_query(query: Mapping[str, str], type_: type[T], refused: Refused) -> T:
    """Reads a query as read_json reads a body. Raises InvalidRequest.

    Numbers and booleans are read from their text; an empty value is none.
    """
    given = {name: value for name, value in query.items() if value}
    for name in refused.keys() & given.keys():
        _refuse(name, _whole_text(given[name]), tuple(each.strip('"') for each in refused[name]))
    try:
        return msgspec.convert(given, type_, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong_field(error) from None


def _plain(value: msgspec.Raw) -> str:
    """The JSON without white space."""
    return _whole_text(msgspec.json.format(value, indent=-1).decode())


def _whole_text(value: str) -> str:
    """A whole number without its fraction: 1.0 is 1."""
    try:
        number = float(value)
    except ValueError:
        return value
    return str(int(number)) if number.is_integer() else value


def _refuse(name: str, value: str, harmless: tuple[str, ...]) -> None:
    if value in EMPTY or value in harmless:
        return
    raise _not_supported(name)


def _not_supported(field: str) -> InvalidRequest:
    advice = INSTEAD.get(field, "leave it out")
    return InvalidRequest(f"{field} is not supported by this server: {advice}.", param=field)


def _wrong_field(error: msgspec.ValidationError) -> InvalidRequest:
    found = _AT_PATH.fullmatch(str(error))
    reason, path = (found["reason"], found["path"]) if found else (str(error), "")
    reason = shortened(reason)  # it may repeat what the client sent
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
