r"""Turns a JSON schema into the part of it that a grammar can enforce.

A schema that is strict is enforced as it is, or refused with the place that cannot be. Any other is
relaxed: what cannot be enforced is left out. Leaving a keyword out widens a schema only where
nothing around it negates, so what stands within `not`, `if` or `contains` goes with it as a whole,
and `oneOf` becomes `anyOf`.

The result admits all that the given schema admits, with four exceptions: at its top it has no names
but those that it speaks of (keywords.allows_other_names), `\s` matches no spaces but ASCII's
(patterns.py), what stands beside a `$ref` counts in drafts 4 to 7 too, which ignore it, and a
strict bound beyond 2^53 is tightened (assertions.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from handlers.grammar.schema.assertions import Assertions
from handlers.grammar.schema.endless import endless_references
from handlers.grammar.schema.keywords import (
    DRAFTS,
    IN_PLACE,
    ONLY_BESIDE,
    PATTERNS,
    UNSUPPORTED,
    add_any_of,
    allows_other_names,
    constraint_count,
    drop_dependents,
    is_open_object,
)
from handlers.grammar.schema.one_of import are_disjoint
from handlers.grammar.schema.patterns import (
    MAX_PATTERNS_OF_VALUE,
    PatternCount,
    kept_pattern,
    with_ascii_spaces,
)
from handlers.grammar.schema.strictness import OMITTED, Strictness, schema_error, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from handlers.grammar.schema.limits import Budget
    from handlers.grammar.schema.references import Path, References

# References that stand beside other schemas of the same value, in a whole schema: each copies what
# it leads to, so definitions that lead to two of the next double: 20 of them take 14 s and 1.5 GB.
MAX_JOINED_REFERENCES = 8

NOTHING_SAID: dict[str, Any] = {}


class EnforceableSchema(msgspec.Struct, frozen=True):
    """A schema that a grammar can enforce, whose references lead to `$defs` of its own."""

    schema: dict[str, Any]
    strict: bool
    origins: Mapping[str, Path]
    """The path of each of `$defs` in the given schema."""
    path: Path = ()
    """The path of the schema itself, where it is a part of the given one."""


def enforceable(
    schema: Mapping[str, Any],
    *,
    strict: bool,
    budget: Budget,
    report: Callable[[str], None],
) -> EnforceableSchema:
    """Returns the part of a schema that is enforced, which is all of it if it is strict.

    `report` is called with each part that is left out. Raises InvalidRequest for what costs too
    much and, if the schema is strict, for what cannot be enforced: `param` is then the path to it.
    """
    relaxer = _Relaxer(budget.begin(schema), Strictness(strict, report), budget)
    return EnforceableSchema(relaxer.document(schema), strict, relaxer.origins)


class _Relaxer:
    """Walks one schema. A method returns what is kept of a keyword or schema, or OMITTED.

    `conjoined`, where a method has it: whether a value has to fit other schemas too. `count`: the
    patterns that those schemas and this one have for the value.
    """

    def __init__(self, references: References, strictness: Strictness, budget: Budget) -> None:
        self.origins: dict[str, Path] = {}
        self._references = references
        self._endless = endless_references(references)
        self._strictness = strictness
        self._budget = budget
        self._assertions = Assertions(strictness, budget)
        self._names: dict[tuple[Path, bool, int], str] = {}
        self._disjoint: dict[tuple[int, ...], bool] = {}
        self._joined_references = 0
        self._waiting: list[tuple[str, Path, bool, int]] = []
        """Definitions that are referred to and not yet walked."""

    def document(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what is kept of the whole schema, with all definitions that it refers to."""
        whole: dict[str, Any] = self._node(schema, ())
        definitions: dict[str, object] = {}
        while self._waiting:
            name, path, conjoined, patterns = self._waiting.pop()
            target = self._references.target(path)
            definitions[name] = self._node(target, path, conjoined, PatternCount(patterns))
        if str(schema.get("$schema")).rstrip("#") in DRAFTS:
            whole["$schema"] = schema["$schema"]
        return {**whole, "$defs": definitions} if definitions else whole

    def _node(
        self, node: object, path: Path, conjoined: bool = False, count: PatternCount | None = None
    ) -> Any:
        """Returns what is kept of one schema. `count`: None for a value of its own."""
        if isinstance(node, bool):
            return node
        if not isinstance(node, dict):
            return self._strictness.refuse_or_omit(
                path, "a schema that is neither an object nor a boolean", rest=True
            )
        conjoined_within = conjoined or constraint_count(node) > 1
        if not path and not allows_other_names(node):
            node = {"additionalProperties": False, **node}
        kept: dict[str, Any] = {}
        count = count or PatternCount()
        # Its own patterns first: those of its parts are counted after them.
        for keyword in sorted(node, key=lambda keyword: keyword not in PATTERNS):
            value = self._keyword(node, keyword, (*path, keyword), conjoined_within, count)
            if value is OMITTED:
                continue
            if keyword in ("anyOf", "oneOf"):
                add_any_of(kept, value)
            elif keyword == "allOf":
                kept["allOf"] = kept.get("allOf", []) + value
            else:
                kept[keyword] = value
        drop_dependents(node, kept)
        if self._strictness.strict and not conjoined_within and is_open_object(node):
            kept["additionalProperties"] = False
        return kept

    def _keyword(
        self,
        node: Mapping[str, Any],
        keyword: str,
        path: Path,
        conjoined: bool,
        count: PatternCount,
    ) -> Any:
        given = node[keyword]
        if keyword in UNSUPPORTED:
            return self._unsupported(node, keyword, given, path)
        if keyword in IN_PLACE:
            return self._in_place(keyword, given, path, conjoined, count)
        if keyword == "prefixItems" or (keyword == "items" and isinstance(given, list)):
            return self._positions(keyword, given, path, conjoined, count)
        if keyword in ("items", "additionalItems", "additionalProperties"):
            # All that several schemas say of names or positions that they do not list is one part.
            name = "any" if conjoined else keyword
            return self._node(given, path, count=count.part(name, conjoined))
        if keyword in ("properties", "patternProperties"):
            return self._map(keyword, given, path, conjoined, count)
        if keyword in PATTERNS:
            return kept_pattern(keyword, given, path, count, self._strictness)
        return self._assertions.kept(keyword, given, path)

    def _unsupported(
        self, node: Mapping[str, Any], keyword: str, value: object, path: Path
    ) -> object:
        beside = ONLY_BESIDE.get(keyword, keyword)
        if beside not in node or value in UNSUPPORTED[keyword]:
            return OMITTED
        return self._strictness.refuse_or_omit(path, f'the keyword "{keyword}"')

    def _in_place(
        self, keyword: str, given: object, path: Path, conjoined: bool, count: PatternCount
    ) -> object:
        """Returns what is kept of schemas that apply to the same value as the one around them."""
        if keyword == "allOf":
            return self._list(
                keyword, given, path, lambda each, at: self._node(each, at, conjoined, count)
            )
        if keyword == "$ref":
            return self._reference(given, path, conjoined, count)
        return self._alternatives(keyword, given, path, conjoined, count)

    def _list(
        self, keyword: str, schemas: object, path: Path, walk: Callable[[object, Path], object]
    ) -> object:
        if not isinstance(schemas, list) or not schemas:
            return self._strictness.refuse_or_omit(path, f"{keyword} {shown(schemas)}")
        return [walk(each, (*path, place)) for place, each in enumerate(schemas)]

    def _positions(
        self, keyword: str, schemas: object, path: Path, conjoined: bool, count: PatternCount
    ) -> object:
        """Returns what is kept of the schemas of an array's first positions."""

        def walk(each: object, at: Path) -> object:
            return self._node(each, at, count=count.part(f"item {at[-1]}", conjoined))

        return self._list(keyword, schemas, path, walk)

    def _map(
        self, keyword: str, schemas: object, path: Path, conjoined: bool, count: PatternCount
    ) -> object:
        if schemas == []:  # PHP's empty object
            schemas = {}
        if not isinstance(schemas, dict):
            return self._strictness.refuse_or_omit(path, f"{keyword} {shown(schemas)}")
        if keyword == "patternProperties":
            return self._pattern_properties(schemas, path, conjoined, count)
        return {
            name: self._node(each, (*path, name), count=count.part(f"name {name}", conjoined))
            for name, each in schemas.items()
        }

    def _pattern_properties(
        self, schemas: dict[str, Any], path: Path, conjoined: bool, count: PatternCount
    ) -> object:
        reason = self._budget.patterns(len(schemas))
        if reason:
            return self._strictness.refuse_or_omit(path, reason)
        patterns = {name: with_ascii_spaces(name) for name in schemas}
        if len(set(patterns.values())) < len(patterns):
            return self._strictness.refuse_or_omit(
                path, "patternProperties of which two are the same"
            )
        return {
            patterns[name]: self._node(
                each,
                (*path, name),
                count=count.part("any" if conjoined else f"pattern {name}", conjoined),
            )
            for name, each in schemas.items()
        }

    def _alternatives(
        self, keyword: str, schemas: object, path: Path, conjoined: bool, count: PatternCount
    ) -> object:
        """Returns what is kept of anyOf or oneOf, of which a value has to match one branch."""
        counts: list[PatternCount] = []

        def walk(each: object, at: Path) -> object:
            counts.append(count.branch())
            return self._node(each, at, conjoined, counts[-1])

        branches = self._list(keyword, schemas, path, walk)
        for branch in counts:
            count.merge(branch)
        if keyword == "anyOf" or branches is OMITTED or self._are_disjoint(schemas, path):
            return branches
        if self._strictness.strict:
            raise schema_error(
                path,
                "oneOf is supported only where no value can fit two of its branches: use anyOf",
            )
        self._strictness.report("oneOf of which a value may fit two branches: held to as anyOf")
        return branches

    def _are_disjoint(self, branches: Any, path: Path) -> bool:
        schemas = [self._resolved(branch, (*path, place)) for place, branch in enumerate(branches)]
        key = tuple(map(id, schemas))  # a union of the same definitions is looked at once
        if key not in self._disjoint:
            self._disjoint[key] = are_disjoint(schemas)
        return self._disjoint[key]

    def _resolved(self, schema: Any, path: Path) -> dict[str, Any]:
        """Returns the schema itself, or what its `$ref` leads to; empty if that is no object."""
        if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
            target = self._references.path(schema["$ref"], path)
            schema = None if target is None else self._references.target(target)
        return schema if isinstance(schema, dict) else NOTHING_SAID

    def _reference(self, given: object, path: Path, conjoined: bool, count: PatternCount) -> object:
        target = self._references.path(given, path[:-1]) if isinstance(given, str) else None
        if target is None:
            return self._strictness.refuse_or_omit(
                path, f"$ref to {shown(given)}, which is not in this schema"
            )
        if path in self._endless:
            return self._strictness.refuse_or_omit(
                path,
                f"$ref to {shown(given)} that no value can end (something on the way there has to "
                "be optional or nullable)",
            )
        joined = conjoined or count.conjoined
        self._joined_references += joined
        if self._joined_references > MAX_JOINED_REFERENCES:
            return self._strictness.refuse_or_omit(
                path, f"more than {MAX_JOINED_REFERENCES} $ref beside other schemas of a value"
            )
        # What several references beside one another lead to is walked later, each for itself.
        patterns = MAX_PATTERNS_OF_VALUE if joined else count.patterns
        key = (target, conjoined, patterns)
        if key not in self._names:
            self._names[key] = f"d{len(self._names)}"
            self._waiting.append((self._names[key], *key))
            self.origins[self._names[key]] = target
        return f"#/$defs/{self._names[key]}"
