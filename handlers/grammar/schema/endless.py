"""Finds the references of a JSON schema that no finite value satisfies.

A node whose `next` is required and is such a node fits no value that ends. Go's encoders write that
for a pointer without `omitempty`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from handlers.grammar.schema.references import Path, References

MAPS = ("properties", "patternProperties")
LISTS = ("prefixItems", "items")
SINGLE = ("items", "additionalItems", "additionalProperties")
CHOICES = ("anyOf", "oneOf")


def endless_references(references: References) -> set[Path]:
    """Returns the paths of references without which every schema that is reached has a value.

    Of a cycle it is the one that closes it. If choices lead into one another there may be more of
    them than are needed: the fewest cannot be found in a time in proportion to the schema.
    """
    if next(references.followed(), None) is None:
        return set()
    return _closing_references(_Demands(references))


class _Demands:
    """A graph of schemas, choices and references, each of which needs others to be satisfied first.

    Each is a number. One that is satisfied has a finite value.
    """

    def __init__(self, references: References) -> None:
        self.references: dict[int, Path] = {}
        """The path of each reference, by its number."""
        self.needs: list[list[int]] = []
        self.is_satisfied: list[bool] = []
        self._missing: list[int] = []
        self._waiting_for: list[list[int]] = []
        self._source = references
        self._numbers: dict[tuple[Path, str], int] = {}
        self._unread: list[tuple[int, Path, Any, str]] = []
        self._schema((), references.target(()), "")
        while self._unread:
            number, path, node, kind = self._unread.pop()
            self._need(number, self._read(path, node, kind))
        for number, missing in enumerate(self._missing):
            if missing == 0:
                self.satisfy(number)

    def satisfy(self, number: int) -> None:
        """Marks one as satisfied, and all that needed nothing else."""
        satisfied = [number]
        while satisfied:
            each = satisfied.pop()
            if not self.is_satisfied[each]:
                self.is_satisfied[each] = True
                for waiting in self._waiting_for[each]:
                    self._missing[waiting] -= 1
                    if self._missing[waiting] == 0:
                        satisfied.append(waiting)

    def _new(self) -> int:
        self.needs.append([])
        self.is_satisfied.append(False)
        self._missing.append(0)
        self._waiting_for.append([])
        return len(self.needs) - 1

    def _need(self, number: int, needs: list[int], at_least: int | None = None) -> None:
        self.needs[number] = needs
        self._missing[number] = len(needs) if at_least is None else at_least
        for each in needs:
            self._waiting_for[each].append(number)

    def _schema(self, path: Path, node: object, kind: str) -> int:
        """Returns the number of a schema.

        `kind`: the one type that the schemas around it leave to the value, empty for several.
        """
        if (path, kind) not in self._numbers:
            self._numbers[path, kind] = self._new()
            self._unread.append((self._numbers[path, kind], path, node, kind))
        return self._numbers[path, kind]

    def _read(self, path: Path, node: Any, kind: str) -> list[int]:
        """Returns what a schema needs. All schemas within it get numbers, needed or not."""
        if not isinstance(node, dict):
            return []
        kind = _only_type(node) or kind or self._type_of_all(path, node)
        needs = [
            *self._reference(path, node, kind),
            *self._list(path, node, "allOf", kind),
            *(self._choice(path, node, keyword, kind) for keyword in CHOICES if node.get(keyword)),
        ]
        inner = {part: self._schema((*path, *part), each, "") for part, each in _inner(node)}
        demanded = {"object": _of_object, "array": _of_array}.get(kind)
        return needs + [
            inner[part] for part in (demanded(node) if demanded else ()) if part in inner
        ]

    def _type_of_all(self, path: Path, node: Mapping[str, Any]) -> str:
        """Returns the type that a schema in `allOf` has.

        The schema of a class that extends another has its type there alone.
        """
        every = node.get("allOf")
        for place, each in enumerate(every if isinstance(every, list) else ()):
            target = self._target((*path, "allOf", place), each)
            kind = _only_type(each) or _only_type(
                None if target is None else self._source.target(target)
            )
            if kind:
                return kind
        return ""

    def _target(self, path: Path, node: object) -> Path | None:
        text = node.get("$ref") if isinstance(node, dict) else None
        return self._source.path(text, path) if isinstance(text, str) else None

    def _reference(self, path: Path, node: Mapping[str, Any], kind: str) -> list[int]:
        target = self._target(path, node)
        if target is None:
            return []
        number = self._new()
        self.references[number] = (*path, "$ref")
        self._need(number, [self._schema(target, self._source.target(target), kind)])
        return [number]

    def _choice(self, path: Path, node: Mapping[str, Any], keyword: str, kind: str) -> int:
        number = self._new()
        branches = self._list(path, node, keyword, kind)
        self._need(number, branches, min(len(branches), 1))
        return number

    def _list(self, path: Path, node: Mapping[str, Any], keyword: str, kind: str) -> list[int]:
        every = node.get(keyword)
        within = enumerate(every) if isinstance(every, list) else ()
        return [self._schema((*path, keyword, place), each, kind) for place, each in within]


def _closing_references(demands: _Demands) -> set[Path]:
    """Follows unsatisfied needs, and gives up the reference that closes each cycle."""
    found: set[Path] = set()
    for start in range(len(demands.needs)):
        path: dict[int, None] = {start: None}
        while path:
            here = next(reversed(path))
            if demands.is_satisfied[here]:
                path.popitem()
                continue
            needs = demands.needs[here]
            while demands.is_satisfied[needs[-1]]:
                needs.pop()
            if needs[-1] not in path:
                path[needs[-1]] = None
                continue
            while here not in demands.references:
                here = path.popitem()[0]
            found.add(demands.references[here])
            demands.satisfy(here)
    return found


def _only_type(node: object) -> str:
    kind = node.get("type") if isinstance(node, dict) else None
    if isinstance(kind, list) and len(kind) == 1:
        kind = kind[0]
    return kind if isinstance(kind, str) else ""


def _inner(node: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], object]]:
    """Yields the schemas of a value's parts, by the keyword and the name or position under it."""
    for keyword in MAPS:
        if isinstance(node.get(keyword), dict):
            yield from (((keyword, name), each) for name, each in node[keyword].items())
    for keyword in LISTS:
        if isinstance(node.get(keyword), list):
            yield from (((keyword, place), each) for place, each in enumerate(node[keyword]))
    for keyword in SINGLE:
        if isinstance(node.get(keyword), dict):
            yield (keyword,), node[keyword]


def _of_object(node: Mapping[str, Any]) -> Sequence[tuple[str | int, ...]]:
    """Returns which of its inner schemas every object needs."""
    properties, required = node.get("properties", {}), node.get("required")
    if not isinstance(required, list) or not isinstance(properties, dict):
        return ()
    names = [name for name in required if isinstance(name, str)]
    is_other = "patternProperties" not in node and any(name not in properties for name in names)
    rest = [("additionalProperties",)] if is_other else []
    return [*(("properties", name) for name in names), *rest]


def _of_array(node: Mapping[str, Any]) -> Sequence[tuple[str | int, ...]]:
    """Returns which of its inner schemas every array needs."""
    least = node.get("minItems", 0)
    if not isinstance(least, int | float) or least < 1:
        return ()
    keyword = next((each for each in LISTS if isinstance(node.get(each), list)), "")
    places = range(int(min(len(node[keyword]), least)) if keyword else 0)
    rest = "additionalItems" if keyword == "items" else "items"
    beyond = [(rest,)] if least > len(places) else []
    return [*((keyword, place) for place in places), *beyond]
