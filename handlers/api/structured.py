"""The fields that ask for an answer of a form: OpenAI's, vLLM's and llama.cpp's names for it.

handlers/grammar/compiler.py compiles the grammars. fields.py gives these fields to every endpoint
that generates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from handlers.api.parsing import RawFields, RequestBody, members_of, reject_unknown, why_not_json
from handlers.errors import InvalidRequest, quoted

if TYPE_CHECKING:
    from handlers.api.model import DecoderModel
    from handlers.grammar.compiler import GrammarCompiler
    from handlers.grammar.constraint import GrammarConstraint
    from handlers.grammar.tool_grammar import AnswerSchema

Schema = dict[str, Any]


# vLLM's options that ask for what is done anyhow: the model has no choice of spaces, and there is
# one compiler of grammars.
ALWAYS_SO = ("disable_any_whitespace", "disable_fallback")
# Types of a format that vLLM and OpenAI know besides ours, and what to send in place of each.
OTHER_FORMATS = {
    "structural_tag": 'send tools with tool_choice "auto" or "required"',
    "grammar": "send the grammar as structured_outputs.grammar",
    "regex": "send the regular expression as structured_outputs.regex",
    "choice": "send the choices as structured_outputs.choice",
    "python": "send json_schema, or a grammar as structured_outputs.grammar",
}


class TextFormat(msgspec.Struct, frozen=True, tag_field="type", tag="text"):
    """Any text."""


class JsonObjectFormat(
    msgspec.Struct, frozen=True, tag_field="type", tag="json_object", omit_defaults=True
):
    """A JSON object; of a schema where there is one, as llama.cpp has it.

    A response gives it back as OpenAI's clients know it: without `schema`.
    """

    schema: Schema | None = None


class NamedSchema(msgspec.Struct, frozen=True):
    """OpenAI's `json_schema`."""

    name: str | None = None
    description: str | None = None
    schema: Schema | None = None
    strict: bool | None = None


class JsonSchemaFormat(msgspec.Struct, frozen=True, tag_field="type", tag="json_schema"):
    """JSON that is valid under a schema."""

    json_schema: NamedSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(msgspec.Struct, frozen=True):
    """vLLM's one object for all of them."""

    json: Schema | str | None = None
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class Structured(RequestBody, frozen=True, kw_only=True):
    """At most one of these may ask for a form."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | str | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    json_schema: Schema | None = None
    """llama.cpp's."""
    grammar: str | None = None
    """llama.cpp's, in GBNF."""

    @classmethod
    def check_members(cls, fields: RawFields) -> None:
        """Refuses members that would change the form and are not supported."""
        if "structured_outputs" in fields:
            known = StructuredOutputs.__struct_fields__
            asked = fields["structured_outputs"]
            reject_unknown("structured_outputs", asked, (*known, *ALWAYS_SO))
        if "response_format" in fields:
            check_format("response_format", fields["response_format"])


class Form(msgspec.Struct, frozen=True):
    """What one field asks for."""

    field: str
    compile: Callable[[GrammarCompiler], GrammarConstraint]
    schema: Schema | str | None = None
    """Of the JSON that is asked for, where it is JSON."""
    strict: bool = False
    """Whether the whole schema is enforced, or the request refused."""

    def answer_schema(self) -> AnswerSchema:
        """What an answer beside tools is held to. Raises InvalidRequest that names the field."""
        from handlers.grammar.tool_grammar import AnswerSchema

        if self.schema is None:
            raise InvalidRequest(
                f"{self.field} cannot go with tools that may be called, only a form of JSON can: "
                f'leave one out, or send tool_choice: "none".',
                param=self.field,
            )
        try:
            return AnswerSchema(_read(self.schema), self.strict, self.fault)
        except InvalidRequest as error:
            raise self.fault(error) from None

    def fault(self, error: InvalidRequest) -> InvalidRequest:
        """The same error with the field's name, in front of the path in its schema."""
        param = f"{self.field}.{error.param}" if error.param else self.field
        return InvalidRequest(f"{self.field}: {error}", param=param)

    async def grammar(self, model: DecoderModel) -> GrammarConstraint:
        """Raises InvalidRequest that names the field."""
        try:
            grammar = await model.compiling.run(lambda: self.compile(model.grammars))
        except InvalidRequest as error:
            raise self.fault(error) from None
        grammar.field = self.field
        return grammar


def check_format(field: str, value: msgspec.Raw, schema_inside: bool = True) -> None:
    """Refuses a type and members of a format that are not supported, by their paths.

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


def form_of(body: Structured) -> Form | None:
    """None for any text. Raises InvalidRequest where two fields ask."""
    forms = [
        *_of_response_format(body.response_format),
        *_of_fields("structured_outputs.", body.structured_outputs or StructuredOutputs()),
        *_of_fields("guided_", _guided(body)),
        *([] if body.json_schema is None else [schema_form("json_schema", body.json_schema)]),
        *_of_fields("", StructuredOutputs(grammar=body.grammar)),
    ]
    if len(forms) > 1:
        first, second, *_ = (form.field for form in forms)
        raise InvalidRequest(f"{second} cannot go with {first}: send one of them.", param=second)
    return forms[0] if forms else None


def _guided(body: Structured) -> StructuredOutputs:
    return StructuredOutputs(
        json=body.guided_json,
        regex=body.guided_regex,
        choice=body.guided_choice,
        grammar=body.guided_grammar,
    )


def _of_response_format(asked: ResponseFormat | None) -> list[Form]:
    if asked is None or isinstance(asked, TextFormat):
        return []
    if isinstance(asked, JsonObjectFormat):
        field, schema, strict = "response_format.schema", asked.schema, None
    else:
        named = asked.json_schema
        field, schema, strict = "response_format.json_schema.schema", named.schema, named.strict
    if schema is None:
        return [object_form("response_format")]
    return [schema_form(field, schema, strict)]


def _of_fields(prefix: str, asked: StructuredOutputs) -> list[Form]:
    """`prefix`: what stands before the names of StructuredOutputs in the body's."""
    forms = []
    if asked.json is not None:
        forms.append(schema_form(f"{prefix}json", asked.json))
    if asked.json_object:
        forms.append(object_form(f"{prefix}json_object"))
    if asked.regex is not None:
        regex = asked.regex
        forms.append(Form(f"{prefix}regex", lambda grammars: grammars.regex(regex)))
    if asked.choice is not None:
        choice = asked.choice
        forms.append(Form(f"{prefix}choice", lambda grammars: grammars.choice(choice)))
    if asked.grammar is not None:
        forms.append(_grammar(f"{prefix}grammar", asked.grammar))
    return forms


def schema_form(field: str, schema: Schema | str, strict: bool | None = None) -> Form:
    """JSON that is valid under a schema. vLLM takes the schema's own JSON in a string, too."""
    held = strict is True
    return Form(
        field, lambda grammars: grammars.json_schema(_read(schema), strict=held), schema, held
    )


def object_form(field: str) -> Form:
    """Any JSON object."""
    return Form(field, lambda grammars: grammars.json_object(), {"type": "object"})


def _read(schema: Schema | str) -> Schema:
    if not isinstance(schema, str):
        return schema
    try:
        return msgspec.json.decode(schema, type=Schema)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        reason = why_not_json(schema.encode(errors="replace"), error)
        raise InvalidRequest(f"the schema is not a JSON object: {reason}.") from None


def _grammar(field: str, text: str) -> Form:
    """A grammar in GBNF where it has the sign ::=, else in Lark: vLLM tells them apart so, too."""
    if "::=" in text:
        return Form(field, lambda grammars: grammars.gbnf(text))
    return Form(field, lambda grammars: grammars.lark(text))
