"""Reads from the sources whether a function uses a package, itself or through what it calls."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from tests.support.import_graph import ROOT, tree_of


@dataclass(frozen=True)
class Question:
    """A question: does a name use one of `packages`, itself or by names of files in `through`?"""

    packages: frozenset[str]
    through: tuple[str, ...]
    _answers: dict[tuple[Path, str], bool] = field(default_factory=dict, compare=False)

    def __call__(self, path: Path, name: str) -> bool:
        """The answer for `name`, as it stands at the top of that file."""
        key = (path, name)
        if key not in self._answers:
            self._answers[key] = self._uses(path, name, set())
        return self._answers[key]

    def _uses(self, path: Path, name: str, seen: set[tuple[Path, str]]) -> bool:
        if (path, name) in seen:
            return False
        seen.add((path, name))
        if name in _imported(path):
            return self._imports(_imported(path)[name], seen)
        return any(
            self._imports(used, seen) if "." in used else self._uses(path, used, seen)
            for used in _used(path, name)
        )

    def _imports(self, dotted: str, seen: set[tuple[Path, str]]) -> bool:
        package, _, _ = dotted.partition(".")
        if package in self.packages:
            return True
        if package not in self.through:
            return False
        module, _, name = dotted.rpartition(".")
        place = ROOT.joinpath(*module.split("."))
        files = (place.with_suffix(".py"), place / "__init__.py")
        return any(path.is_file() and self._uses(path, name, seen) for path in files)


@cache
def _used(path: Path, name: str) -> tuple[str, ...]:
    """The names that a definition uses: plain ones of its file, dotted ones of others."""
    own, imported = _definitions(path), _imported(path)
    found: dict[str, None] = {}
    for used in (part for node in own.get(name, ()) for part in ast.walk(node)):
        if isinstance(used, ast.Attribute) and isinstance(used.value, ast.Name):
            if module := imported.get(used.value.id):
                found[f"{module}.{used.attr}"] = None
        elif (
            isinstance(used, ast.Name)
            and used.id != name
            and (used.id in own or used.id in imported)
        ):
            found[used.id] = None
    return tuple(found)


@cache
def _definitions(path: Path) -> dict[str, list[ast.stmt]]:
    """The statements at a module's top that make each of its names."""
    found: dict[str, list[ast.stmt]] = {}
    for node in tree_of(path).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.setdefault(node.name, []).append(node)
        elif isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (each for target in targets for each in ast.walk(target)):
                if isinstance(name, ast.Name):
                    found.setdefault(name.id, []).append(node)
    return found


@cache
def _imported(path: Path) -> dict[str, str]:
    """The dotted name of what each imported name stands for."""
    found: dict[str, str] = {}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {alias.asname or alias.name: alias.name for alias in node.names}
            found |= {name: f"{node.module}.{original}" for name, original in names.items()}
    return found
