"""Parses a request's JSON or query into a struct, and names the field at fault in the error."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, get_args

import msgspec
from msgspec import Meta
from msgspec.structs import fields as fields_of

from handlers.api.unsupported_fields import ADVICE, EMPTY_VALUES, UnsupportedFields
from handlers.errors import InvalidRequest, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable

RawFields = dict[str, msgspec.Raw]
"""An object's members by name, each as undecoded JSON."""

MemberCheck = Callable[[msgspec.Raw], None]
"""Raises InvalidRequest for a member that would change the answer and is not supported."""

# Ids are checked against the vocabulary by the engine, which knows it.
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]

_TEXT = {"type": "string", "minLength": 1}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_LISTS = [{"type": "array", "items": items, "minItems": 1} for items in (_TEXT, _IDS)]

# `as_list` is stricter than the type can be, and says so in the OpenAPI document.
PromptInput = Annotated[
    str | list[str | TokenId | list[TokenId]],
    Meta(extra_json_schema={"allOf": [{"anyOf": [_TEXT, _IDS, *_LISTS]}]}),
]
"""A text, texts, token ids, or lists of token ids: OpenAI's `prompt` and `input`."""


class RequestBody(msgspec.Struct, frozen=True):
    """Base of the structs that bodies and queries are parsed into."""

    unsupported: ClassVar[UnsupportedFields] = {}
    """The fields that are refused because they would change the answer."""

    member_checks: ClassVar[Mapping[str, MemberCheck]] = {}
    """The checks of fields that are objects, of which msgspec ignores unknown members."""


T = TypeVar("T", bound=RequestBody)

NO_OP_VALUES = (*EMPTY_VALUES, "false")
"""The JSON of an unknown member that has no effect."""

# msgspec's "Expected `str`, got `int` - at `$.messages[0].content`", and of an object's names
# "at `key` in `$.logit_bias`". It calls the members of such an object [...].
_AT_PATH = re.compile(
    r"(?P<reason>.*) - at (`key` in )?`\$\.?(?P<path>.*?)(\[\.\.\..*)?`", re.DOTALL
)
_MISSING = re.compile(r"Object missing required field `(?P<field>.*)`")
_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")


def read_json(body: bytes, type_: type[T]) -> T:
    """Parses a JSON body. Raises InvalidRequest, with `param` where one field is at fault."""
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        body.decode()  # msgspec does not look into the fields that it skips
        fields = msgspec.json.decode(body, type=RawFields)
        for name, value in fields.items():
            if name in type_.unsupported:
                _reject_unless_no_op(name, _without_space(value), type_.unsupported[name])
        for name, check in type_.member_checks.items():
            if name in fields:
                check(fields[name])
        return _decode(body, type_)
    except msgspec.ValidationError as error:
        raise _wrong_field(error) from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The body is not UTF-8: see byte {error.start}.") from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(_not_json(body, error)) from None


def read_query(query: Mapping[str, str], type_: type[T]) -> T:
    """Parses a query into a struct. Raises InvalidRequest, as read_json does.

    Numbers and booleans are read from their text; an empty value counts as absent.
    """
    given = {name: value for name, value in query.items() if value}
    for name, value in given.items():
        if name in type_.unsupported:
            no_op_values = tuple(each.strip('"') for each in type_.unsupported[name])
            _reject_unless_no_op(name, _without_fraction(value), no_op_values)
    try:
        return msgspec.convert(given, type_, strict=False)
    except msgspec.ValidationError as error:
        raise _wrong_field(error) from None


def reject_unknown(field: str, value: msgspec.Raw, known: Iterable[str]) -> None:
    """Raises InvalidRequest where an object has a member besides `known` that is no no-op."""
    members = members_of(value)
    for name in sorted(members.keys() - set(known)):
        if _without_space(members[name]) not in NO_OP_VALUES:
            raise _not_supported(f"{field}.{name}")


def members_of(value: msgspec.Raw | None) -> RawFields:
    """Returns the members of an object, none of another value, which the decoder refuses."""
    try:
        return msgspec.json.decode(value or b"{}", type=RawFields)
    except msgspec.ValidationError:
        return {}


def as_list(value: PromptInput, field: str) -> list[str | list[int]]:
    """Returns what `field` holds as a list of one kind. Raises InvalidRequest for a mixture."""
    if isinstance(value, str):
        return [value]
    ids = [part for part in value if isinstance(part, int)]
    parts = [part for part in value if not isinstance(part, int)]
    if (ids and parts) or len({type(part) for part in parts}) > 1:
        raise InvalidRequest(f"{field} mixes texts and ids: send one kind.", param=field)
    return parts or [ids]


def why_not_json(text: bytes, error: Exception) -> str:
    """Returns msgspec's reason, except for half of a surrogate pair, which msgspec calls cut."""
    if _HALF_PAIR.search(text):
        return r"a \u escape may be half of a surrogate pair"
    return str(error)


def _decode(body: bytes, type_: type[T]) -> T:
    """Decodes a body, and accepts 16.0 for an integer, as JSON does and msgspec does not.

    Lua, R and some JavaScript write all numbers so. Only a body that has one is decoded again.
    """
    try:
        return msgspec.json.decode(body, type=type_)
    except msgspec.ValidationError as error:
        if "got `float`" not in str(error):
            raise
    fields: dict[str, Any] = msgspec.json.decode(body)
    structs = _struct_fields(type_)
    whole = {name: _integers(value, within=name in structs) for name, value in fields.items()}
    return msgspec.convert(whole, type_, str_keys=True)


def _struct_fields(type_: type[RequestBody]) -> frozenset[str]:
    """Returns the fields whose values are objects of a type of ours, such as `reasoning`."""
    return frozenset(
        field.encode_name
        for field in fields_of(type_)
        for part in get_args(field.type) or (field.type,)
        if isinstance(part, type) and issubclass(part, msgspec.Struct)
    )


def _integers(value: Any, *, within: bool = False) -> Any:
    """Replaces whole floats by integers; in objects only `within`: a schema stays what it is."""
    if within and type(value) is dict:
        return {name: _integers(part) for name, part in value.items()}
    if type(value) is list:
        # Without a call for each number: a body of 4 MB has a million of them.
        return [
            (int(part) if part.is_integer() else part) if type(part) is float else _integers(part)
            for part in value
        ]
    return int(value) if type(value) is float and value.is_integer() else value


def _without_space(value: msgspec.Raw) -> str:
    """Returns the JSON without white space, and a whole number without its fraction."""
    return _without_fraction(msgspec.json.format(value, indent=-1).decode())


def _without_fraction(value: str) -> str:
    """Returns "1" for "1.0", and any other text as it is."""
    try:
        number = float(value)
    except ValueError:
        return value
    return str(int(number)) if number.is_integer() else value


def _reject_unless_no_op(name: str, value: str, no_op_values: tuple[str, ...]) -> None:
    if value not in EMPTY_VALUES and value not in no_op_values:
        raise _not_supported(name)


def _not_supported(field: str) -> InvalidRequest:
    advice = ADVICE.get(field, "leave it out")
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
