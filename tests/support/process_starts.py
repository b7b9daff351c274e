"""Reads from the sources whether a function of the tests starts a process."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from tests.support.import_graph import ROOT, tree_of

STARTERS = {"subprocess", "multiprocessing"}


@cache
def starts_processes(path: Path, name: str) -> bool:
    """Returns whether `name` of that file, or what it uses of the tests, names a starter."""
    return _starts(path, name, set())


def _starts(path: Path, name: str, seen: set[tuple[Path, str]]) -> bool:
    if (path, name) in seen:
        return False
    seen.add((path, name))
    own, imported = _definitions(path), _imported(path)
    if name in imported:
        return _starts_imported(imported[name], "", seen)
    for node in own.get(name, ()):
        for used in ast.walk(node):
            if isinstance(used, ast.Name) and used.id in own and _starts(path, used.id, seen):
                return True
            if isinstance(used, ast.Name) and used.id in imported:
                if _starts_imported(imported[used.id], "", seen):
                    return True
            elif isinstance(used, ast.Attribute) and isinstance(used.value, ast.Name):
                whole = imported.get(used.value.id)
                if whole and _starts_imported(whole, used.attr, seen):
                    return True
    return False


def _starts_imported(dotted: str, attribute: str, seen: set[tuple[Path, str]]) -> bool:
    if dotted.partition(".")[0] in STARTERS:
        return True
    if not dotted.startswith("tests."):
        return False
    module, _, name = f"{dotted}.{attribute}".rstrip(".").rpartition(".")
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    return path.is_file() and _starts(path, name, seen)


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
