"""The request fields that hold an answer to a format: OpenAI's, vLLM's and llama.cpp's names.

They say which grammar is meant; handlers/grammar compiles it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from handlers.api.parsing import (
    MemberCheck,
    RequestBody,
    members_of,
    reject_unknown,
    why_not_json,
)
from handlers.errors import InvalidRequest, quoted
from handlers.grammar.tool_grammar import AnswerSchema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from handlers.api.model import DecoderModel
    from handlers.grammar.compiler import GrammarCompiler
    from handlers.grammar.constraint import GrammarConstraint

JsonSchema = dict[str, Any]

# vLLM's options for what is the case anyhow: the model has no choice of spaces, and there is one
# compiler of grammars.
NO_OP_OPTIONS = ("disable_any_whitespace", "disable_fallback")
# Types of a format that vLLM and OpenAI have and this server has not, and what to send instead.
OTHER_FORMATS = {
    "structural_tag": 'send tools with tool_choice "auto" or "required"',
    "grammar": "send the grammar as structured_outputs.grammar",
    "regex": "send the regular expression as structured_outputs.regex",
    "choice": "send the choices as structured_outputs.choice",
    "python": "send json_schema, or a grammar as structured_outputs.grammar",
}


class TextFormat(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """A format that any text has."""


class JsonObjectFormat(
    msgspec.Struct, frozen=True, tag_field="type", tag="json_object", omit_defaults=True
):
    """A JSON object; of a schema where there is one, as llama.cpp has it.

    A response gives it back as OpenAI's clients know it: without `schema`.
    """

    schema: JsonSchema | None = None


class NamedSchema(msgspec.Struct, frozen=True):
    """OpenAI's `json_schema`."""

    name: str | None = None
    description: str | None = None
    schema: JsonSchema | None = None
    strict: bool | None = None


class JsonSchemaFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_schema"):
    """JSON that is valid under a schema."""

    json_schema: NamedSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(msgspec.Struct, frozen=True):
    """vLLM's one object for all of them."""

    json: JsonSchema | str | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


def _check_structured_outputs(value: msgspec.Raw) -> None:
    known = StructuredOutputs.__struct_fields__
    reject_unknown("structured_outputs", value, (*known, *NO_OP_OPTIONS))


def check_format(field: str, value: msgspec.Raw, schema_inside: bool = True) -> None:
    """Raises InvalidRequest for a type or members of a format that are not supported.

    `schema_inside`: whether a json_schema has an object of its own for its schema.
    """
    members = members_of(value)
    kind = msgspec.json.decode(members.get("type", b"null"))
    if isinstance(kind, str) and kind in OTHER_FORMATS:
        raise InvalidRequest(
            f"{field}.type: {quoted(kind)} is not supported by this server: {OTHER_FORMATS[kind]}.",
            param=f"{field}.type",
        )
    named = NamedSchema.__struct_fields__
    known = {
        "text": (),
        "json_object": ("schema",),
        "json_schema": ("json_schema",) if schema_inside else named,
    }.get(str(kind))
    if known is None:
        return
    reject_unknown(field, value, ("type", *known))
    if "json_schema" in known and "json_schema" in members:
        reject_unknown(f"{field}.json_schema", members["json_schema"], named)


class StructuredOutputFields(RequestBody, frozen=True, kw_only=True):
    """The fields of which at most one may ask for a format."""

    member_checks: ClassVar[Mapping[str, MemberCheck]] = {
        "structured_outputs": _check_structured_outputs,
        "response_format": partial(check_format, "response_format"),
    }
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: JsonSchema | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    json_schema: JsonSchema | None = None
    """llama.cpp's."""
    grammar: str | None = None
    """llama.cpp's, in GBNF."""


class OutputConstraint(msgspec.Struct, frozen=True):
    """The format that one field holds an answer to."""

    field: str
    compile: Callable[[GrammarCompiler], GrammarConstraint]
    schema: JsonSchema | str | None = None
    """The JSON schema, where the format is JSON."""
    strict: bool = False
    """Whether the whole schema is enforced, or the request refused."""

    def answer_schema(self) -> AnswerSchema:
        """Returns the schema of an answer that calls no tool. Raises InvalidRequest."""
        if self.schema is None:
            raise InvalidRequest(
                f"{self.field} cannot go with tools that may be called, only a form of JSON can: "
                f'leave one out, or send tool_choice: "none".',
                param=self.field,
            )
        try:
            return AnswerSchema(_decode(self.schema), self.strict, self.field)
        except InvalidRequest as error:
            raise error.within(self.field) from None

    async def grammar(self, model: DecoderModel) -> GrammarConstraint:
        """Compiles the grammar. Raises InvalidRequest that names the field."""
        try:
            return await model.compiling.run(lambda: self.compile(model.grammar_compiler))
        except InvalidRequest as error:
            raise error.within(self.field) from None


def output_constraint(body: StructuredOutputFields) -> OutputConstraint | None:
    """Returns the format that a body asks for, None for any text.

    Raises InvalidRequest where two fields ask for one.
    """
    found = [*_constraints(body)]
    if len(found) > 1:
        first, second, *_ = (constraint.field for constraint in found)
        raise InvalidRequest(f"{second} cannot go with {first}: send one of them.", param=second)
    return found[0] if found else None


def _constraints(body: StructuredOutputFields) -> Iterator[OutputConstraint]:
    yield from _of_response_format(body.response_format)
    if body.structured_outputs is not None:
        for kind in StructuredOutputs.__struct_fields__:
            value = getattr(body.structured_outputs, kind)
            yield from _of_field(f"structured_outputs.{kind}", kind, value)
    for kind in ("json", "regex", "choice", "grammar"):
        yield from _of_field(f"guided_{kind}", kind, getattr(body, f"guided_{kind}"))
    yield from _of_field("json_schema", "json", body.json_schema)
    yield from _of_field("grammar", "grammar", body.grammar)


def _of_response_format(given: ResponseFormat | None) -> Iterator[OutputConstraint]:
    if isinstance(given, JsonObjectFormat):
        yield schema_constraint("response_format", "response_format.schema", given.schema)
    elif isinstance(given, JsonSchemaFormat):
        field, named = "response_format.json_schema.schema", given.json_schema
        yield schema_constraint("response_format", field, named.schema, named.strict)


def _of_field(field: str, kind: str, value: Any) -> Iterator[OutputConstraint]:
    """Yields the format that a field asks for, if it has a value. `kind`: vLLM's name of it."""
    if value is None or (kind == "json_object" and not value):
        return
    if kind == "json":
        yield schema_constraint(field, field, value)
    elif kind == "json_object":
        yield schema_constraint(field, field, None)
    elif kind == "regex":
        yield OutputConstraint(field, lambda compiler: compiler.regex(value))
    elif kind == "choice":
        yield OutputConstraint(field, lambda compiler: compiler.choice(value))
    # A grammar is GBNF where it has the sign ::=, otherwise Lark: vLLM tells them apart so, too.
    elif "::=" in value:
        yield OutputConstraint(field, lambda compiler: compiler.gbnf(value))
    else:
        yield OutputConstraint(field, lambda compiler: compiler.lark(value))


def schema_constraint(
    field: str, schema_field: str, schema: JsonSchema | str | None, strict: bool | None = None
) -> OutputConstraint:
    """Returns the format of JSON that is valid under a schema, or of any JSON object without one.

    vLLM takes the schema's own JSON in a string, too. `schema_field`: the field that has the
    schema, which an error about it names.
    """
    if schema is None:
        return OutputConstraint(field, lambda compiler: compiler.json_object(), {"type": "object"})
    held = strict is True
    return OutputConstraint(
        schema_field,
        lambda compiler: compiler.json_schema(_decode(schema), strict=held),
        schema,
        held,
    )


def _decode(schema: JsonSchema | str) -> JsonSchema:
    if not isinstance(schema, str):
        return schema
    try:
        return msgspec.json.decode(schema, type=JsonSchema)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        reason = why_not_json(schema.encode(errors="replace"), error)
        raise InvalidRequest(f"the schema is not a JSON object: {reason}.") from None
