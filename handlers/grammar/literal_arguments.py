"""The grammar of arguments that stand one by one as literals of a programming language."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from handlers.grammar.lark_rules import Closing, Member, escaped, lark_string, members, one_of
from handlers.grammar.schema.assertions import NUMBER_KEYWORDS
from handlers.grammar.schema.keywords import OF_OBJECTS
from handlers.grammar.schema.object_shape import STYLE, of_types, types_of, union_of, values_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from handlers.artifact.dialect import LiteralArguments
    from handlers.grammar.lark_rules import LarkRules
    from handlers.grammar.schema.object_shape import ObjectShape, Placed, Property, SchemaReader
    from handlers.grammar.schema.references import Path
    from handlers.grammar.text_patterns import TextPatterns

LENGTHS = ("minLength", "maxLength")
# What Python's repr escapes, without halves of surrogate pairs.
ESCAPE = (
    r"\\(?:[\\'\"nrt]|x[0-9a-f]{2}|u(?:[0-9a-ce-f][0-9a-f]{3}|d[0-7][0-9a-f]{2})"
    r"|U000[1-9a-f][0-9a-f]{4}|U0010[0-9a-f]{4})"
)
QUOTES = ("'", '\\"')
"""Python's, as they stand in a regular expression of Lark."""
NOT_IN_KEYS = frozenset(",()[]{}'\"\n\r\t :=<>|")
KEY = r"[^,()\[\]{}'\"\s:=<>|]{1,128}"


class LiteralRules:
    """Writes the rules of one tool's arguments."""

    def __init__(
        self, rules: LarkRules, style: LiteralArguments, reader: SchemaReader, texts: TextPatterns
    ) -> None:
        self._rules = rules
        self._style = style
        self._reader = reader
        self._texts = texts
        self._waiting: list[tuple[str, Any, Path]] = []
        """Rules that are named and not yet written, each with its schema."""

    def body(self) -> str:
        """Returns Lark for the arguments."""
        shapes = self._reader.shapes(*self._reader.root)
        body = one_of(self._rule_of_members(shape, is_value=False) for shape in shapes)
        while self._waiting:
            name, schema, path = self._waiting.pop()
            self._rules.define(name, self._alternatives(schema, path))
        return body

    def _value(self, schema: Any, path: Path) -> str:
        """Returns the rule of a value."""
        if not isinstance(schema, dict) or not schema:
            return self._later("", {}, path)
        if "$ref" in schema:
            return self._later(f"{id(self._reader)} {json.dumps(schema)}", schema, path)
        return self._rules.rule(self._alternatives(schema, path))

    def _later(self, key: str, schema: Any, path: Path) -> str:
        """Returns a rule that is written when all that leads to it is: it may lead to itself."""
        name, is_new = self._rules.recursive_rule(f"{key} {self._style}")
        if is_new:
            self._waiting.append((name, schema, path))
        return name

    def _alternatives(self, schema: Any, path: Path) -> str:
        """Returns Lark for a value, in each way in which it may be written."""
        parts = self._reader.parts(schema, path)
        found = [*self._ways(parts, path)]
        if not found:
            self._reader.omit(path, f"a schema that no value fits {STYLE}")
            found = [self._value({}, path)]
        return one_of(found)

    def _ways(self, parts: Sequence[Placed], path: Path) -> Iterator[str]:
        types, values, union = types_of(parts), values_of(parts), union_of(parts)
        if values is not None:
            self._reader.hold_to(parts, ("enum", "const"))
            yield from map(self._written, of_types(values, types))
        elif union is not None and not any(key in node for node, _ in parts for key in OF_OBJECTS):
            self._reader.hold_to(parts, ("anyOf",))
            kinds = next((node["type"] for node, _ in parts if "type" in node), None)
            for index, each in enumerate(union[0]):
                if each is not False:
                    branch = each if kinds is None else _typed(each, kinds)
                    yield self._value(branch, (*union[1], index))
        else:
            for kind in types:
                yield from self._of_type(kind, parts, path)

    def _of_type(self, kind: str, parts: Sequence[Placed], path: Path) -> Iterator[str]:
        style = self._style
        if kind == "null":
            yield lark_string(style.null)
        elif kind == "boolean":
            yield from map(lark_string, (style.true, style.false))
        elif kind in ("integer", "number"):
            yield self._json(kind, NUMBER_KEYWORDS, parts, path)
        elif kind == "string":
            yield from self._string(parts, path)
        elif kind == "array":
            yield f'"[" {self._items(parts)} "]"'
        else:
            for shape in self._reader.shapes_of(parts):
                yield f'"{{" {self._rule_of_members(shape, is_value=True)} "}}"'

    def _json(self, kind: str, keywords: Sequence[str], parts: Sequence[Placed], path: Path) -> str:
        """Returns the rule of values of one type, which are written as in JSON."""
        held = [{key: node[key] for key in keywords if key in node} for node, _ in parts]
        first, *others = [each for each in held if each] or [{}]
        schema = {"type": kind, **first, **({"allOf": others} if others else {})}
        return self._rules.json(self._reader.inline(schema, path))

    def _string(self, parts: Sequence[Placed], path: Path) -> Iterator[str]:
        quote = self._style.quote
        held = {key for node, _ in parts for key in (*LENGTHS, "pattern", "format") if key in node}
        if quote == '"':
            yield self._json("string", (*LENGTHS, "pattern", "format"), parts, path)
        elif quote != "'":
            closing = Closing(quote)
            patterns = self._texts.of(parts, lambda given: closing.texts(*given))
            yield f"{lark_string(quote)} {self._rules.terminal(closing.texts(*patterns))}"
        elif held <= {*LENGTHS}:
            least = max(node.get("minLength", 0) for node, _ in parts or [({}, ())])
            most = min((node["maxLength"] for node, _ in parts if "maxLength" in node), default="")
            for pattern in _python_strings(f"{{{least},{most}}}"):
                yield self._rules.terminal(f"/{pattern}/")
        else:
            patterns = self._texts.of(parts, _quoted)
            yield from (self._rules.terminal(_quoted(patterns, quote)) for quote in QUOTES)

    def _items(self, parts: Sequence[Placed]) -> str:
        least = max(node.get("minItems", 0) for node, _ in parts or [({}, ())])
        most = min((node["maxItems"] for node, _ in parts if "maxItems" in node), default=None)
        first, rest = self._positions(parts)
        separator = lark_string(self._style.separator)
        count = len(first) if most is None else min(len(first), most)
        more = ""
        if rest is not None and (most is None or most > count):
            low = max(0, least - count)
            if count:
                high = "" if most is None else str(most - count)
                more = f"({separator} {rest}){{{low},{high}}}"
            else:
                high = "" if most is None else str(most - 1)
                more = f"{rest} ({separator} {rest}){{{max(0, low - 1)},{high}}}"
                more = more if low else f"({more})?"
        run = [f"{separator if place else ''} {first[place]}" for place in range(count)]
        if not run:
            return more
        run[-1] += f" {more}"
        return f"{' '.join(run[:least])} {self._beginning(run[least:])}"

    def _beginning(self, run: Sequence[str]) -> str:
        """Returns Lark for the first few of a run, or none, or all."""
        if len(run) < 2:
            return f"({run[0]})?" if run else ""
        middle = len(run) // 2
        half = self._rules.rule(" ".join(run[:middle]))
        return f"({self._beginning(run[:middle])} | {half} {self._beginning(run[middle:])})"

    def _positions(self, parts: Sequence[Placed]) -> tuple[list[str], str | None]:
        """Returns the rules of the first items, and of all others, None if there are none."""
        having = [each for each in parts if "items" in each[0] or "prefixItems" in each[0]]
        for _, path in having[1:]:
            self._reader.omit(path, f"items in several schemas {STYLE}")
        node, path = having[0] if having else ({}, ())
        keyword = "items" if isinstance(node.get("items"), list) else "prefixItems"
        others = "additionalItems" if keyword == "items" else "items"
        listed = node.get(keyword, [])
        rest = node.get(others, True)
        if False in listed:
            listed, rest = listed[: listed.index(False)], False
        placed = enumerate(listed)
        first = [self._value(each, (*path, keyword, index)) for index, each in placed]
        return first, None if rest is False else self._value(rest, (*path, others))

    def _rule_of_members(self, shape: ObjectShape, is_value: bool) -> str:
        """Returns the rule of an object's members, or of the arguments themselves."""
        style = self._style
        assign = style.nested_assign if is_value else style.assign
        quoted = is_value and style.quoted_keys
        known = [each for each in shape.properties if quoted or self._is_writable(each, assign)]
        listed = [
            Member(f"{lark_string(self._key(each.name, quoted) + assign)} {value}", each.required)
            for each in known
            for value in [self._value(each.schema, each.path)]
        ]
        extra = ""
        if shape.others[0] is not False:
            keys = one_of(map(self._rules.terminal, self._other_keys(shape.known, quoted)))
            extra = self._rules.rule(f"{keys} {lark_string(assign)} {self._value(*shape.others)}")
        return self._rules.rule(
            members(self._rules, listed, extra=extra, separator=style.separator) or '""'
        )

    def _key(self, name: str, quoted: bool) -> str:
        return self._text(name) if quoted else name

    def _other_keys(self, known: frozenset[str], quoted: bool) -> Iterator[str]:
        """Yields terminals of the keys that are not known."""
        names = "|".join(escaped(self._key(name, quoted)) for name in sorted(known))
        quote = escaped(self._style.quote)
        patterns = [KEY]
        if quoted and self._style.quote == "'":
            patterns = [*_python_strings("{0,128}")]
        elif quoted:
            patterns = [f"{quote}[^'\\\\\\\"<|\\x00-\\x1f]{{0,128}}{quote}"]
        for pattern in patterns:
            yield f"/{pattern}/ & ~/(?:{names})/" if names else f"/{pattern}/"

    def _is_writable(self, member: Property, assign: str) -> bool:
        """Returns whether the name can stand without quotes. Raises InvalidRequest if strict."""
        name = member.name
        if name and NOT_IN_KEYS.isdisjoint(name) and assign.strip() not in name:
            return True
        self._reader.omit(member.path, f"a property of this name {STYLE}")
        return False

    def _written(self, value: object) -> str:
        return lark_string(self._text(value))

    def _text(self, value: object) -> str:
        """Returns a value as the model writes it."""
        return self._style.write({"": _whole(value)}).removeprefix(self._style.assign)


def _typed(schema: Any, kinds: str | list[str]) -> Any:
    """Returns a schema that allows no other types, unless it says itself which ones."""
    given = schema if isinstance(schema, dict) else {}
    return given if "type" in given else {"type": kinds, **given}


def _whole(value: Any) -> Any:
    """Returns a value in which whole numbers have no fraction."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole(each) for key, each in value.items()}
    return [_whole(each) for each in value] if isinstance(value, list) else value


def _python_strings(length: str) -> Iterator[str]:
    """Yields patterns of strings as Python's repr writes them. `length`: of a repetition."""
    for quote in QUOTES:
        yield rf"{quote}(?:[^{quote}\\\x00-\x1f\x7f]|{ESCAPE}){length}{quote}"


def _quoted(patterns: Sequence[str], quote: str = "'") -> str:
    """Returns a terminal of Python's strings that match all patterns and need no escapes."""
    matching = [f"/{quote}(?:{pattern}){quote}/" for pattern in patterns]
    return " & ".join([*matching, rf"/{quote}[^{quote}\\\x00-\x1f\x7f]*{quote}/"])
