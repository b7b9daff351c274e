r"""The part of a JSON schema that a grammar can enforce.

A schema that is strict is enforced as it is, or refused with the place that cannot be. Any other is
relaxed: what cannot be enforced is left out. Leaving a keyword out widens a schema only where
nothing around it negates, so what stands within `not`, `if` or `contains` goes with it as a whole,
and `oneOf` becomes `anyOf`.

What comes out admits all that the given schema admits, with four exceptions: at its top it has no
names but those that it speaks of (_speaks_of_other_names), `\s` matches no spaces but ASCII's
(pattern_spaces.py), what stands beside a `$ref` counts in drafts 4 to 7 too, which ignore it, and
a strict bound beyond 2^53 is tightened (schema_numbers.py).

Knows the keywords of JSON Schema and which of them llguidance compiles, not its calls. What no
table here foresees, schema_repair.py finds by trial. Used by grammar.py.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from handlers.errors import InvalidRequest, quoted, shortened
from handlers.grammar.schema.endless import endless_references
from handlers.grammar.schema.numbers import BEYOND, are_exact, is_endless, is_exact, tightened
from handlers.grammar.schema.one_of import are_disjoint
from handlers.grammar.schema.patterns import MatchedValue, with_ascii_spaces
from handlers.grammar.schema.references import dotted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from handlers.grammar.schema.limits import Budget
    from handlers.grammar.schema.references import Path, References

TYPES = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid"}
)
# The drafts that llguidance knows, by which it reads `items` and `prefixItems`.
DRAFTS = frozenset(
    {
        "https://json-schema.org/draft/2020-12/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "http://json-schema.org/draft-07/schema",
        "http://json-schema.org/draft-06/schema",
        "http://json-schema.org/draft-04/schema",
    }
)
COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
# llguidance compiles none of these. With each, the values that ask for nothing.
UNSUPPORTED: Mapping[str, tuple[object, ...]] = {
    "not": (False,),
    "if": (),
    "then": (),
    "else": (),
    "contains": (),
    "minContains": (),
    "maxContains": (),
    "uniqueItems": (False,),
    "propertyNames": (True, {}, {"type": "string"}),
    "dependencies": ({},),
    "dependentRequired": ({},),
    "dependentSchemas": ({},),
    "unevaluatedItems": (True, {}),
    "unevaluatedProperties": (True, {}),
    "$dynamicRef": (),
    "$recursiveRef": (),
}
# Each of these means something only beside the other.
ONLY_BESIDE = {
    "then": "if",
    "else": "if",
    "minContains": "contains",
    "maxContains": "contains",
}
IN_PLACE = ("allOf", "anyOf", "oneOf", "$ref")
# Each speaks of names that `properties` may not have.
OF_NAMES = frozenset(
    {
        *IN_PLACE,
        "$dynamicRef",
        "$recursiveRef",
        "if",
        "const",
        "enum",
        "patternProperties",
        "propertyNames",
        "dependencies",
        "dependentRequired",
        "dependentSchemas",
    }
)
# With any of these an object says itself which names it may have: strict does not close it.
DECIDES_NAMES = (*IN_PLACE, "additionalProperties", "unevaluatedProperties", "const", "enum")
OF_OBJECTS = ("properties", "patternProperties", "additionalProperties")
# Rust reads larger repetitions as a mistake.
MAX_COUNT = 2**32 - 2

# Of patterns and formats that one value has to match. Each doubles the time in which llguidance
# finds whether any text matches all: 16 take a second, 30 take minutes and gigabytes.
MAX_EXPRESSIONS = 2
# References that stand beside other schemas of the same value, in a whole schema: each copies what
# it leads to, so definitions that lead to two of the next double: 20 of them take 14 s and 1.5 GB.
MAX_JOINED_REFERENCES = 8
EXPRESSIONS = ("pattern", "format")

OMITTED = object()
NOTHING_SAID: dict[str, Any] = {}


class EnforceableSchema(msgspec.Struct, frozen=True):
    """A schema as a grammar can have it: its references lead to `$defs` of its own."""

    schema: dict[str, Any]
    strict: bool
    origins: Mapping[str, Path]
    """Where in the given schema each of `$defs` stands."""


def enforceable(
    schema: Mapping[str, Any],
    *,
    strict: bool,
    budget: Budget,
    report: Callable[[str], None],
) -> EnforceableSchema:
    """Gives the part of a schema that is enforced, which is all of it where it is strict.

    `report` is called with each thing that is left out of any other. Raises InvalidRequest for
    what costs too much and, where the schema is strict, for what cannot be enforced: `param` is
    then the path to it.
    """
    reader = _Reader(budget.begin(schema), strict, budget, report)
    return EnforceableSchema(reader.document(schema), strict, reader.origins)


def fault(path: Path, reason: str) -> InvalidRequest:
    """The error that refuses a strict schema for what stands at `path`."""
    names = [each for before, each in pairwise(path) if before == "properties"]
    where = f"property {_shown(names[-1])}: " if names else ""
    return InvalidRequest(
        f"The JSON schema cannot be used: {where}{reason}. Leave that out, or send the schema "
        "without strict: true.",
        param=dotted(path) or None,
    )


class _Reader:
    """Reads one schema. Methods give what is kept of a value, or OMITTED for nothing of it."""

    def __init__(
        self,
        references: References,
        strict: bool,
        budget: Budget,
        report: Callable[[str], None],
    ) -> None:
        self.origins: dict[str, Path] = {}
        self._references = references
        self._endless = endless_references(references)
        self._strict = strict
        self._budget = budget
        self._report = report
        self._names: dict[tuple[Path, bool, int], str] = {}
        self._disjoint: dict[tuple[int, ...], bool] = {}
        self._joined_references = 0
        self._waiting: list[tuple[str, Path, bool, int]] = []
        """Definitions that are referred to and not yet read."""

    def document(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """What is kept of the whole schema, with all definitions that it refers to."""
        whole: dict[str, Any] = self._node(schema, ())
        definitions: dict[str, object] = {}
        while self._waiting:
            name, path, conjoined, expressions = self._waiting.pop()
            target = self._references.target(path)
            definitions[name] = self._node(target, path, conjoined, MatchedValue(expressions))
        if str(schema.get("$schema")).rstrip("#") in DRAFTS:
            whole["$schema"] = schema["$schema"]
        return {**whole, "$defs": definitions} if definitions else whole

    def _node(
        self, node: object, path: Path, conjoined: bool = False, value: MatchedValue | None = None
    ) -> Any:
        """What is kept of one schema. `conjoined`: whether a value has to fit another, too.

        `value`: the one that the schemas around this one speak of, None for a value of its own.
        """
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            return self._refuse_or_report(
                path, "a schema that is neither an object nor a boolean", True
            )
        within = conjoined or _members(node) > 1
        if not path and not _speaks_of_other_names(node):
            node = {"additionalProperties": False, **node}
        kept: dict[str, Any] = {}
        value = value or MatchedValue()
        # Its own expressions first: those of its parts count beside them.
        for keyword in sorted(node, key=lambda keyword: keyword not in EXPRESSIONS):
            read = self._keyword(node, keyword, (*path, keyword), within, value)
            if read is OMITTED:
                continue
            if keyword in ("anyOf", "oneOf"):
                _add_alternatives(kept, read)
            elif keyword == "allOf":
                kept["allOf"] = kept.get("allOf", []) + read
            else:
                kept[keyword] = read
        _widen(node, kept)
        if self._strict and not within and _is_open_object(node):
            kept["additionalProperties"] = False
        return kept

    def _keyword(
        self,
        node: Mapping[str, Any],
        keyword: str,
        path: Path,
        conjoined: bool,
        value: MatchedValue,
    ) -> object:
        given = node[keyword]
        if keyword in UNSUPPORTED:
            return self._unsupported(node, keyword, given, path)
        if keyword in IN_PLACE:
            return self._in_place(keyword, given, path, conjoined, value)
        if keyword == "prefixItems" or (keyword == "items" and isinstance(given, list)):
            return self._places(keyword, given, path, conjoined, value)
        if keyword in ("items", "additionalItems", "additionalProperties"):
            # What several schemas say of names or places that they do not list meets in one.
            name = "any" if conjoined else keyword
            return self._node(given, path, value=value.part(name, conjoined))
        if keyword in ("properties", "patternProperties"):
            return self._map(keyword, given, path, conjoined, value)
        if keyword in EXPRESSIONS:
            return self._expression(keyword, given, path, value)
        return self._assertion(keyword, given, path)

    def _in_place(
        self, keyword: str, given: object, path: Path, conjoined: bool, value: MatchedValue
    ) -> object:
        """What is kept of schemas that speak of the same value as the one around them."""
        if keyword == "allOf":
            return self._list(
                keyword, given, path, lambda each, at: self._node(each, at, conjoined, value)
            )
        if keyword == "$ref":
            return self._reference(given, path, conjoined, value)
        return self._alternatives(keyword, given, path, conjoined, value)

    def _assertion(self, keyword: str, value: object, path: Path) -> object:
        """What is kept of a keyword without schemas in it. An annotation is not reported."""
        if keyword in ("const", "enum") and not are_exact(value):
            return self._refuse_or_report(path, f"{keyword} with a number {BEYOND}")
        if keyword == "const":
            return value
        if keyword in COUNTS:
            return self._count(keyword, value, path)
        if keyword in BOUNDS and (_is_number(value) or isinstance(value, bool)):
            return self._bound(keyword, value, path)
        if keyword == "multipleOf":
            return self._multiple_of(value, path)
        sound: dict[str, Callable[[], object]] = {
            "enum": lambda: isinstance(value, list) and value,
            "required": lambda: _are_texts(value),
            "type": lambda: value in TYPES if isinstance(value, str) else _are_types(value),
        }
        if keyword in BOUNDS or (keyword in sound and not sound[keyword]()):
            return self._refuse_or_report(path, f"{keyword} {_shown(value)}")
        return value if keyword in sound else OMITTED

    def _expression(self, keyword: str, given: object, path: Path, value: MatchedValue) -> object:
        """What is kept of a pattern or a format."""
        if not isinstance(given, str) or (keyword == "format" and given not in FORMATS):
            return self._refuse_or_report(path, f"{keyword} {_shown(given)}")
        if value.expressions >= MAX_EXPRESSIONS:
            return self._refuse_or_report(
                path, f"more than {MAX_EXPRESSIONS} patterns and formats of one value"
            )
        value.expressions += 1
        return with_ascii_spaces(given) if keyword == "pattern" else given

    def _unsupported(
        self, node: Mapping[str, Any], keyword: str, value: object, path: Path
    ) -> object:
        beside = ONLY_BESIDE.get(keyword, keyword)
        if beside not in node or value in UNSUPPORTED[keyword]:
            return OMITTED
        return self._refuse_or_report(path, f'the keyword "{keyword}"')

    def _list(
        self, keyword: str, schemas: object, path: Path, read: Callable[[object, Path], object]
    ) -> object:
        if not isinstance(schemas, list) or not schemas:
            return self._refuse_or_report(path, f"{keyword} {_shown(schemas)}")
        return [read(each, (*path, place)) for place, each in enumerate(schemas)]

    def _places(
        self, keyword: str, schemas: object, path: Path, conjoined: bool, value: MatchedValue
    ) -> object:
        """What is kept of schemas of which each speaks of one place in an array."""

        def read(each: object, at: Path) -> object:
            return self._node(each, at, value=value.part(f"item {at[-1]}", conjoined))

        return self._list(keyword, schemas, path, read)

    def _map(
        self, keyword: str, schemas: object, path: Path, conjoined: bool, value: MatchedValue
    ) -> object:
        if schemas == []:  # PHP's empty object
            schemas = {}
        if not isinstance(schemas, dict):
            return self._refuse_or_report(path, f"{keyword} {_shown(schemas)}")
        if keyword == "patternProperties":
            reason = self._budget.patterns(len(schemas))
            if reason:
                return self._refuse_or_report(path, reason)
            named = [with_ascii_spaces(name) for name in schemas]
            if len(set(named)) < len(named):
                return self._refuse_or_report(path, "patternProperties of which two are the same")
            return {
                with_ascii_spaces(name): self._node(
                    each,
                    (*path, name),
                    value=value.part("any" if conjoined else f"pattern {name}", conjoined),
                )
                for name, each in schemas.items()
            }
        return {
            name: self._node(each, (*path, name), value=value.part(f"name {name}", conjoined))
            for name, each in schemas.items()
        }

    def _alternatives(
        self, keyword: str, schemas: object, path: Path, conjoined: bool, value: MatchedValue
    ) -> object:
        """What is kept of anyOf or oneOf, of which a value has to match one branch alone."""
        values: list[MatchedValue] = []

        def read(each: object, at: Path) -> object:
            values.append(value.branch())
            return self._node(each, at, conjoined, values[-1])

        branches = self._list(keyword, schemas, path, read)
        for branch in values:
            value.take_over(branch)
        if keyword == "anyOf" or branches is OMITTED or self._are_disjoint(schemas, path):
            return branches
        if self._strict:
            raise fault(
                path,
                "oneOf is supported only where no value can fit two of its branches: use anyOf",
            )
        self._report("oneOf of which a value may fit two branches: held to as anyOf")
        return branches

    def _are_disjoint(self, branches: Any, path: Path) -> bool:
        schemas = [self._resolved(branch, (*path, place)) for place, branch in enumerate(branches)]
        key = tuple(map(id, schemas))  # a union of the same definitions is looked at once
        if key not in self._disjoint:
            self._disjoint[key] = are_disjoint(schemas)
        return self._disjoint[key]

    def _resolved(self, schema: Any, path: Path) -> dict[str, Any]:
        """The schema itself, or what its `$ref` leads to. Empty where that is no object."""
        if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
            target = self._references.path(schema["$ref"], path)
            schema = None if target is None else self._references.target(target)
        return schema if isinstance(schema, dict) else NOTHING_SAID

    def _reference(self, given: object, path: Path, conjoined: bool, value: MatchedValue) -> object:
        target = self._references.path(given, path[:-1]) if isinstance(given, str) else None
        if target is None:
            return self._refuse_or_report(
                path, f"$ref to {_shown(given)}, which is not in this schema"
            )
        if path in self._endless:
            return self._refuse_or_report(
                path,
                f"$ref to {_shown(given)} that no value can end (something on the way there has to "
                "be optional or nullable)",
            )
        joined = conjoined or value.joined
        self._joined_references += joined
        if self._joined_references > MAX_JOINED_REFERENCES:
            return self._refuse_or_report(
                path, f"more than {MAX_JOINED_REFERENCES} $ref beside other schemas of a value"
            )
        # What several references beside one another lead to is read later, each for itself.
        expressions = MAX_EXPRESSIONS if joined else value.expressions
        key = (target, conjoined, expressions)
        if key not in self._names:
            self._names[key] = f"d{len(self._names)}"
            self._waiting.append((self._names[key], *key))
            self.origins[self._names[key]] = target
        return f"#/$defs/{self._names[key]}"

    def _count(self, keyword: str, value: object, path: Path) -> object:
        if _is_number(value) and 0 <= value == int(value):  # type: ignore[operator, call-overload]
            count = int(value)  # type: ignore[call-overload]
            if count <= MAX_COUNT:
                return count
            if keyword.startswith("max"):
                return OMITTED  # no answer is as long
        return self._refuse_or_report(path, f"{keyword} {_shown(value)}")

    def _bound(self, keyword: str, value: Any, path: Path) -> object:
        if is_exact(value):
            return value
        nearest = tightened(keyword, value)
        if self._strict and nearest is not None:
            return nearest
        if not self._strict and is_endless(keyword, value):
            return OMITTED
        return self._refuse_or_report(path, f"{keyword} {_shown(value)} (a number {BEYOND})")

    def _multiple_of(self, value: object, path: Path) -> object:
        if not _is_number(value) or value <= 0:  # type: ignore[operator]
            return self._refuse_or_report(path, f"multipleOf {_shown(value)}")
        reason = self._budget.multiple_of(value)  # type: ignore[arg-type]
        return self._refuse_or_report(path, reason) if reason else value

    def _refuse_or_report(self, path: Path, what: str, rest: object = OMITTED) -> object:
        """Reports what cannot be enforced and gives `rest`. Raises InvalidRequest if strict."""
        if self._strict:
            raise fault(path, f"{what} is not supported")
        self._report(what)
        return rest


def _members(node: Mapping[str, Any]) -> int:
    """How many of the node's keywords and branches speak of one object's properties."""
    every = node.get("allOf")
    alone = sum(keyword in node for keyword in ("anyOf", "oneOf", "$ref"))
    of_objects = any(keyword in node for keyword in OF_OBJECTS)
    return (len(every) if isinstance(every, list) else 0) + alone + of_objects


def _speaks_of_other_names(schema: Mapping[str, Any]) -> bool:
    """Whether a schema means an object to have names that its `properties` do not have.

    Where the whole schema does not, it is closed, though JSON Schema would allow any name. One that
    a model makes up is an error for a tool's function, and in an answer a small model goes on
    making up more until it is cut: llama.cpp and vLLM's xgrammar do not let it be written either.
    """
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, dict) or not OF_NAMES.isdisjoint(schema):
        return True
    least = schema.get("minProperties", 0)
    return (
        schema.get("unevaluatedProperties", False) is not False
        or not _are_texts(required)
        or not properties.keys() >= set(required)
        or (_is_number(least) and least > len(properties))
    )


def _is_open_object(node: Mapping[str, Any]) -> bool:
    """Whether an object says nothing of the names that it may have besides `properties`."""
    if any(keyword in node for keyword in DECIDES_NAMES):
        return False
    kind = node.get("type")
    return "properties" in node or kind == "object" or (isinstance(kind, list) and "object" in kind)


def _add_alternatives(kept: dict[str, Any], branches: Any) -> None:
    """Adds an anyOf. Where there is one already, an allOf holds the value to both."""
    if "anyOf" in kept:
        kept["allOf"] = [*kept.get("allOf", []), {"anyOf": branches}]
    else:
        kept["anyOf"] = branches


def _widen(node: Mapping[str, Any], kept: dict[str, Any]) -> None:
    """Leaves out keywords that would admit less once a keyword beside them is left out."""
    if any(keyword in node and keyword not in kept for keyword in OF_OBJECTS[:2]):
        kept.pop("additionalProperties", None)
    if "prefixItems" in node and "prefixItems" not in kept:
        kept.pop("items", None)


def _is_number(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, int) and not isinstance(value, bool)


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _are_types(value: object) -> bool:
    return isinstance(value, list) and _are_texts(value) and bool(value) and TYPES.issuperset(value)


def _shown(value: object) -> str:
    """The client's value as an error or the log shows it: of a list or an object only that."""
    if isinstance(value, str):
        return quoted(value)
    is_plain = value is None or isinstance(value, int | float)
    return shortened(repr(value)) if is_plain else type(value).__name__
