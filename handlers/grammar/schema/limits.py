"""Limits on JSON schemas, so that none takes minutes, gigabytes or the stack to compile.

llguidance bounds the grammar that a schema becomes, not the work of making it. Each limit below
has the schema that it is there for.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from handlers.errors import InvalidRequest
from handlers.grammar.schema.references import References, inner, objects

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

# Compiling takes time and memory that grow with the source. The largest schema that OpenAI accepts
# has 5,000 properties, and 120,000 characters of names and values.
MAX_SOURCE = 512 * 1024
# As many as OpenAI allows. Those of one object take time with their square: 5,000 take 0.5 s.
MAX_PROPERTIES = 5_000
# Each is compared with each: 100 take 0.1 s, 500 more than 20 s.
MAX_PATTERNS = 100
# A state for every remainder: 10,000 take 0.1 s, 1,000,000 take 25 s and 400 MB. allOf multiplies,
# several schemas add: 30 tools of 9,973 and less take 4 s.
MAX_MULTIPLE = 10_000
MAX_DEPTH = 100
# Objects and lists that one chain of $ref can lead through. 2,400 compile with a stack of 8 MB;
# 4,800 overflow it, which ends the process.
MAX_LEVELS = 600
TOGETHER = "with the other schemas of the request"


class Budget:
    """Counts what the schemas of one request cost together: it may have 128 tools."""

    def __init__(self) -> None:
        self._characters = 0
        self._properties = 0
        self._patterns = 0
        self._multiples: set[int] = set()
        """The least common multiple of each earlier schema. The same twice costs no more."""
        self._multiple = 1
        """The least common multiple of the current schema, so far."""

    def begin(self, schema: Mapping[str, Any]) -> References:
        """Counts another schema in, and returns its references.

        Raises InvalidRequest if it would take too long to compile. Every check takes time in
        proportion to the schema. The depth is checked first, without recursion: what comes after
        may use recursion, as json.dumps does.
        """
        check_depth(schema)
        self._characters += len(json.dumps(schema))
        _at_most(MAX_SOURCE, f"characters {TOGETHER}", self._characters)
        self._properties += _properties(schema)
        _at_most(MAX_PROPERTIES, f"properties {TOGETHER}", self._properties)
        references = References(schema)
        chain = longest_chain(schema, references)
        _at_most(MAX_LEVELS, "levels in a chain of its $ref", chain)
        self._multiples |= {self._multiple} - {1}
        self._multiple = 1
        return references

    def patterns(self, count: int) -> str:
        """Counts more patternProperties in. Returns what is then too much, empty for nothing."""
        if self._patterns + count > MAX_PATTERNS:
            return f"more than {MAX_PATTERNS:,} patternProperties {TOGETHER}"
        self._patterns += count
        return ""

    def multiple_of(self, number: float) -> str:
        """Counts a multipleOf in. Returns what is then too much, empty for nothing."""
        multiple = math.lcm(self._multiple, _digits(number))
        if sum(self._multiples | {multiple}) > MAX_MULTIPLE:
            return f"a least common multiple of all multipleOf above {MAX_MULTIPLE:,}"
        self._multiple = multiple
        return ""


def check_depth(schema: object) -> None:
    """Raises InvalidRequest for a schema that is nested too deeply to be read by recursion."""
    depth, level = 0, [schema]
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [each for outer in level for each in inner(outer)]
    _at_most(MAX_DEPTH, "levels", depth)


def _properties(schema: Mapping[str, Any]) -> int:
    found = (each.get("properties") for each in objects(schema))
    return sum(len(value) for value in found if isinstance(value, dict))


def _digits(number: float) -> int:
    """Returns the number's digits as a whole number: its decimal point costs nothing."""
    if isinstance(number, int) or number.is_integer():
        return int(number)
    return int(repr(number).partition("e")[0].replace(".", ""))


def _at_most(limit: int, what: str, count: int) -> None:
    if count > limit:
        raise InvalidRequest(
            f"The JSON schema cannot be used: it may have {limit:,} {what}, but has more. "
            "Make it smaller."
        )


Graph = dict[int, list[int]]
"""The objects and lists that each object or list leads to, all by their `id`."""


def longest_chain(schema: object, references: References) -> int:
    """Returns the number of objects and lists on the longest path down a schema and its references.

    What compiles a schema calls itself for each of them. Definitions that lead back to one another
    count as one path through all of them: the longest path among them cannot be found in a time in
    proportion to the schema, as this is.
    """
    tree, depths = _measured(schema)
    targets = set()
    for source, target in references.followed():
        if isinstance(target, dict | list):
            tree[id(source)].append(id(target))
            targets.add(id(target))
    lengths: dict[int, int] = {}
    for members in _components(tree, id(schema)):
        beyond = (each for member in members for each in tree[member])
        longest = max((lengths[each] for each in beyond if each in lengths), default=0)
        is_cycle = len(members) > 1 or members[0] in tree[members[0]]
        own = sum(depths[each] for each in members if each in targets) if is_cycle else 1
        lengths |= dict.fromkeys(members, own + longest)
    return lengths[id(schema)]


def _measured(schema: object) -> tuple[Graph, Mapping[int, int]]:
    """Returns what stands in each object and list, and how many levels deep it is."""
    tree: Graph = {}
    order, waiting = [], [schema]
    while waiting:
        value = waiting.pop()
        within = inner(value)
        tree[id(value)] = [id(each) for each in within]
        order.append(id(value))
        waiting += within
    depths: dict[int, int] = {}
    for each in reversed(order):
        depths[each] = 1 + max((depths[inside] for inside in tree[each]), default=0)
    return tree, depths


def _components(graph: Graph, start: int) -> Iterator[Sequence[int]]:
    """Yields strongly connected components, each after those that it leads to (Tarjan)."""
    order = {start: 0}
    lowest = {start: 0}
    unfinished = [start]
    finished: set[int] = set()
    path = [(start, iter(graph[start]))]
    while path:
        vertex, rest = path[-1]
        for each in rest:
            if each not in order:
                order[each] = lowest[each] = len(order)
                unfinished.append(each)
                path.append((each, iter(graph[each])))
                break
            if each not in finished:
                lowest[vertex] = min(lowest[vertex], order[each])
        else:
            path.pop()
            if path:
                above = path[-1][0]
                lowest[above] = min(lowest[above], lowest[vertex])
            if lowest[vertex] == order[vertex]:
                members = [unfinished.pop()]
                while members[-1] != vertex:
                    members.append(unfinished.pop())
                finished.update(members)
                yield members
