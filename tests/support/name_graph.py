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
        own, imported = _definitions(path), _imported(path)
        if name in imported:
            return self._imports(imported[name], seen)
        for node in own.get(name, ()):
            for used in ast.walk(node):
                if isinstance(used, ast.Attribute) and isinstance(used.value, ast.Name):
                    module = imported.get(used.value.id)
                    if module and self._imports(f"{module}.{used.attr}", seen):
                        return True
                elif isinstance(used, ast.Name) and used.id != name:
                    known = used.id in own or used.id in imported
                    if known and self._uses(path, used.id, seen):
                        return True
        return False

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
