"""The grammar of arguments that stand one by one between marks, as in XML.

A string stands there as it is, up to the mark after it, and any other value as JSON. Where a schema
takes strings and others, a text that reads as JSON or as a literal is one: a string of it stands
in JSON's quotes.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from handlers.artifact.dialect import CDATA, CDATA_END
from handlers.grammar.lark_rules import Closing, Member, escaped, lark_string, members, one_of
from handlers.grammar.schema.argument_types import string_arguments
from handlers.grammar.schema.assertions import NUMBER_KEYWORDS
from handlers.grammar.schema.object_shape import STYLE, is_new, types_of, union_of, values_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from handlers.artifact.dialect import TaggedArguments
    from handlers.grammar.lark_rules import LarkRules
    from handlers.grammar.schema.object_shape import ObjectShape, Placed, Property, SchemaReader
    from handlers.grammar.schema.references import Path
    from handlers.grammar.text_patterns import TextPatterns

WORDS: Mapping[str, Sequence[str]] = {"null": ("null",), "boolean": ("true", "false")}
NUMBERS = {
    "integer": r"-?(?:0|[1-9][0-9]*)",
    "number": r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?",
}
# With these a string stands in CDATA, where a style has it.
MARKED = frozenset("<&\n")
BLANKS = r"[ \t\r\n]*"
NULL = rf"{BLANKS}(?i:null|none|nil|undefined){BLANKS}"
NUMBER = r"[+-]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9]+)?"
LITERAL = (
    rf"{BLANKS}(?i:null|none|nil|undefined|true|false|{NUMBER}){BLANKS}|{BLANKS}[\[\{{\('\"](?s:.*)"
)
"""What a parser may read as another value than a string."""
LITERAL_OR_DIGITS = rf"{LITERAL}|{BLANKS}[+\-.]?[0-9](?s:.*)"
KEY = r"[^\n\r\"<>]{1,128}"


class TaggedRules:
    """Writes the rules of one tool's arguments."""

    def __init__(
        self,
        rules: LarkRules,
        style: TaggedArguments,
        reader: SchemaReader,
        patterns: TextPatterns,
        given: Mapping[str, Any],
    ) -> None:
        """`given`: the tool's schema, by which a parser tells which arguments are strings."""
        self._rules = rules
        self._style = style
        self._reader = reader
        self._patterns = patterns
        self._closing = Closing(style.close)
        self._cdata = Closing(CDATA_END + style.close) if style.cdata else None
        self._strings = string_arguments(given)
        self._nullable = string_arguments(given, frozenset({"string", "null"}))

    def body(self) -> str:
        """Returns Lark for the arguments."""
        shapes = self._reader.shapes(*self._reader.root)
        return one_of(self._rules.rule(self._members(shape) or '""') for shape in shapes)

    def _members(self, shape: ObjectShape) -> str:
        listed = [
            Member(self._rules.rule(one_of(self._argument(each))), each.required)
            for each in shape.properties
            if self._is_writable(each)
        ]
        extra = "" if shape.others[0] is False else self._rules.rule(one_of(self._other(shape)))
        style = self._style
        return members(self._rules, listed, extra=extra, lead=style.open, separator=style.separator)

    def _argument(self, argument: Property) -> Iterator[str]:
        """Yields Lark for an argument after the mark of its beginning, in each way to write it."""
        for middle, values in self._values(argument.name, argument.schema, argument.path):
            yield f"{lark_string(argument.name + middle)} {self._rules.rule(one_of(values))}"

    def _other(self, shape: ObjectShape) -> Iterator[str]:
        """Yields Lark for an argument that is not listed."""
        for middle, values in self._values(None, *shape.others):
            key = Closing(middle).texts(KEY, unlike=self._known(shape))
            name = self._rules.terminal(key)
            yield f"{name} {self._rules.rule(one_of(values))}"

    def _known(self, shape: ObjectShape) -> str:
        return "|".join(map(escaped, sorted(shape.known)))

    def _values(
        self, name: str | None, schema: Any, path: Path
    ) -> Iterator[tuple[str, Iterable[str]]]:
        """Yields the mark before a value, and Lark for the values after it."""
        middle, other = self._style.middle, self._style.other_middle
        if name in self._strings:
            yield (
                middle,
                [*self._texts(schema, path)] or [self._rules.terminal(self._closing.texts())],
            )
            return
        types = self._reader.types(schema, path)
        if other is not None:
            if "string" in types:
                yield middle, self._texts(schema, path)
            if types != ["string"]:
                yield other, [self._json(schema, path)]
        elif name in self._nullable:
            yield middle, [self._literal("null"), *self._texts(schema, path, NULL)]
        elif "string" in types:
            yield middle, self._mixed(schema, path, types)
        else:
            yield middle, [self._json(schema, path)]

    def _mixed(self, schema: Any, path: Path, types: Sequence[str]) -> Iterator[str]:
        """Yields Lark for strings and other values.

        The lexer does not go back: what a text may begin with is read with the mark after it.
        """
        yield self._json(schema, path)
        if values_of(self._reader.parts(schema, path)) is not None:
            yield from self._texts(schema, path, LITERAL)
            return
        words = (word for kind in types for word in WORDS.get(kind, ()))
        yield from map(self._literal, words)
        whole = json.dumps(self._reader.inline(schema, path).schema)
        if any(f'"{bound}"' in whole for bound in NUMBER_KEYWORDS):
            yield from self._texts(schema, path, LITERAL_OR_DIGITS)
            return
        numbers = (pattern for kind, pattern in NUMBERS.items() if kind in types)
        yield from (self._rules.terminal(self._closing.texts(each)) for each in numbers)
        yield from self._texts(schema, path, LITERAL)

    def _json(self, schema: Any, path: Path) -> str:
        source = self._reader.inline(schema, path)
        if "$defs" in source.schema:
            size = len(json.dumps(source.schema))
            if not self._rules.has_room_for_copy(size):
                self._reader.omit(path, f"a property with {size:,} characters of $defs {STYLE}")
                source = self._reader.inline({"type": self._reader.types(schema, path)}, path)
        return f"{self._rules.json(source)} {lark_string(self._style.close)}"

    def _texts(
        self, schema: Any, path: Path, unlike: str = "", seen: set[int] | None = None
    ) -> Iterator[str]:
        """Yields Lark for the strings of a schema, each with the mark after it.

        `seen`: the branches that are read already, as in SchemaReader.shapes_of.
        """
        if schema is False:
            return
        parts = self._reader.parts(schema, path)
        values = values_of(parts)
        if values is not None:
            self._reader.hold_to(parts, ("enum", "const"))
            for text in values:
                if isinstance(text, str) and not (unlike and re.fullmatch(unlike, text)):
                    yield from self._known_text(text, parts)
            return
        if union_of(parts) is not None:
            yield from self._texts_of_union(parts, unlike, set() if seen is None else seen)
            return
        if "string" not in types_of(parts):
            return

        marked = "" if self._cdata is None else f"{escaped(CDATA)}(?s:.*)"
        plain = "|".join(filter(None, [unlike, marked]))

        def terminal(patterns: Sequence[str]) -> str:
            return self._closing.texts(*patterns, unlike=plain)

        patterns = self._patterns.of(parts, terminal)
        yield self._rules.terminal(terminal(patterns))
        if self._cdata is not None:
            text = self._rules.terminal(self._cdata.texts(*patterns))
            yield f"{lark_string(CDATA)} {text}"

    def _texts_of_union(
        self, parts: Sequence[Placed], unlike: str, seen: set[int]
    ) -> Iterator[str]:
        branches, path = union_of(parts) or ([], ())
        self._reader.hold_to(parts, ("anyOf",))
        for index, branch in enumerate(branches):
            if is_new(branch, seen):
                yield from self._texts(branch, (*path, index), unlike, seen)

    def _known_text(self, text: str, parts: Sequence[Placed]) -> Iterator[str]:
        literal = self._closing.literal(text)
        if self._cdata is not None and not MARKED.isdisjoint(text):
            ended = self._cdata.literal(text)
            literal = ended and f"{lark_string(CDATA)} {ended}"
        if literal is None:
            self._reader.omit(parts[0][1], f"a value with {self._style.close!r} in it {STYLE}")
        else:
            yield literal

    def _literal(self, word: str) -> str:
        return lark_string(word + self._style.close)

    def _is_writable(self, argument: Property) -> bool:
        """Returns whether the name can stand before its mark. Raises InvalidRequest otherwise.

        A name that is not required is left out of a schema that is not strict.
        """
        name, middle = argument.name, self._style.middle.strip()
        if name and name == name.strip() and name.isprintable() and middle not in name:
            return True
        self._reader.omit(argument.path, f"a property of this name {STYLE}")
        return False
