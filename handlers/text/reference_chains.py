"""How many levels of a JSON schema one chain of references leads through.

Knows `$ref` and no other keyword: what compiles a schema calls itself for each level. Used by
json_schema.py, which bounds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.text.schema_references import inner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from handlers.text.schema_references import References

Graph = dict[int, list[int]]
"""The objects and lists that each object or list leads to, all by their `id`."""


def longest_chain(schema: object, references: References) -> int:
    """The objects and lists on the longest way down through a schema and along its references.

    Definitions that lead back to one another count as one way through all of them, for the longest
    among them is not to be found in a time in proportion to the schema, as this is.
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
    """What stands in each object and list, and how many levels deep it is."""
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
    """The strongly connected components, each after those that it leads to (Tarjan's algorithm)."""
    order = {start: 0}
    lowest = {start: 0}
    unfinished = [start]
    finished: set[int] = set()
    way = [(start, iter(graph[start]))]
    while way:
        vertex, rest = way[-1]
        for each in rest:
            if each not in order:
                order[each] = lowest[each] = len(order)
                unfinished.append(each)
                way.append((each, iter(graph[each])))
                break
            if each not in finished:
                lowest[vertex] = min(lowest[vertex], order[each])
        else:
            way.pop()
            if way:
                above = way[-1][0]
                lowest[above] = min(lowest[above], lowest[vertex])
            if lowest[vertex] == order[vertex]:
                members = [unfinished.pop()]
                while members[-1] != vertex:
                    members.append(unfinished.pop())
                finished.update(members)
                yield members
