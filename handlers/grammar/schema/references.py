"""Resolves the references of a JSON schema, by JSON pointers, `$id` and `$anchor`, within it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Path = tuple[str | int, ...]
"""The names and positions that lead from the document to a part of it."""


class References:
    """Resolves the references of one document."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._resources: dict[str, Path | None] = {"": ()}
        """The path of the part with each `$id`, None if two parts have the same."""
        self._bases: dict[Path, str] = {(): ""}
        """The `$id` of each such part, and of the whole."""
        self._anchors: dict[str, Path | None] = {}
        for path, part, base in _parts(root):
            if isinstance(part.get("$id"), str):
                self._resources[base] = None if base in self._resources else path
                self._bases[path] = base
            anchor = part.get("$anchor")
            if isinstance(anchor, str):  # of data, too, such as of an enum
                self._anchors[anchor] = None if anchor in self._anchors else path
        self._around = {path: path for path in self._bases}
        self._found: dict[tuple[str, Path], Path | None] = {}

    def path(self, reference: str, place: Path = ()) -> Path | None:
        """Returns the path to which a reference at `place` leads, None for none in the document."""
        within = self._resource_of(place)
        if (reference, within) not in self._found:
            self._found[reference, within] = self._resolve(reference, within)
        return self._found[reference, within]

    def target(self, path: Path) -> object:
        """Returns the part of the document at a path that `path` returned."""
        target: Any = self._root
        for part in path:
            target = target[part]
        return target

    def followed(self) -> Iterator[tuple[dict[str, Any], object]]:
        """Yields each object that has a reference, with its target, if it has one."""
        for path, part, _ in _parts(self._root):
            reference = part.get("$ref")
            target = self.path(reference, path) if isinstance(reference, str) else None
            if target is not None:
                yield part, self.target(target)

    def _resource_of(self, place: Path) -> Path:
        """Returns the path of the innermost part around a place that has an `$id`."""
        if place not in self._around:
            self._around[place] = self._resource_of(place[:-1])
        return self._around[place]

    def _resolve(self, reference: str, within: Path) -> Path | None:
        from urllib.parse import unquote

        uri, _, fragment = reference.partition("#")
        resource = self._resources.get(_joined(self._bases[within], uri)) if uri else within
        fragment = unquote(fragment)
        if resource is None or fragment in {"", "/"}:
            return resource
        if not fragment.startswith("/"):
            return self._anchors.get(fragment)
        path = list(resource)
        target: Any = self.target(resource)
        for part in fragment[1:].split("/"):
            step = _step(target, part.replace("~1", "/").replace("~0", "~"))
            if step is None:
                return None
            path.append(step)
            target = target[step]
        return tuple(path)


def objects(schema: object) -> Iterator[dict[str, Any]]:
    """Yields every object in the schema, itself first."""
    waiting = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
        waiting += inner(value)


def inner(value: object) -> list[object]:
    """Returns the objects and lists that stand directly in an object or a list."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [each for each in values if isinstance(each, dict | list)]


def _step(target: object, part: str) -> str | int | None:
    if isinstance(target, dict) and part in target:
        return part
    if isinstance(target, list) and part.isascii() and part.isdigit() and len(part) < 7:
        return int(part) if int(part) < len(target) else None
    return None


def _parts(root: Mapping[str, Any]) -> Iterator[tuple[Path, dict[str, Any], str]]:
    """Yields every object with its path, and the `$id` that references in it are relative to."""
    waiting: list[tuple[Path, object, str]] = [((), root, "")]
    while waiting:
        path, value, base = waiting.pop()
        if isinstance(value, dict):
            name = value.get("$id")
            base = _joined(base, name) if isinstance(name, str) else base
            yield path, value, base
            waiting += [((*path, each), inner, base) for each, inner in value.items()]
        elif isinstance(value, list):
            waiting += [((*path, place), each, base) for place, each in enumerate(value)]


def _joined(base: str, reference: str) -> str:
    """Returns the address of a reference relative to a base, without its fragment.

    If Python cannot read the two as addresses, that is the reference itself.
    """
    from urllib.parse import urljoin

    try:
        return urljoin(base, reference).partition("#")[0]
    except ValueError:
        return reference
