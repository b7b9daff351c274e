"""Reads from the sources what a file of ours imports, directly and through others. Runs nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = {"bench", "deploy", "handlers", "kernels", "model_export", "scripts", "tests"}


@dataclass(frozen=True)
class Reach:
    """The modules that are loaded with a file."""

    files: frozenset[Path]
    packages: frozenset[str]
    """Those of others: the first part of their names."""


@cache
def reach(start: Path, *, late: bool) -> Reach:
    """All that `start` imports, itself included; with `late` also what functions import late.

    Without it, those late imports count that stand in `start` itself.
    """
    files: set[Path] = set()
    packages: set[str] = set()
    waiting = [start]
    while waiting:
        path = waiting.pop()
        if path in files:
            continue
        files.add(path)
        for module in imports(path, late=late or path == start):
            if module.partition(".")[0] in OURS:
                waiting += found_files(module)
            else:
                packages.add(module.partition(".")[0])
    return Reach(frozenset(files), frozenset(packages))


@cache
def imports(path: Path, *, late: bool) -> frozenset[str]:
    """The dotted names that a file imports, but not those for type checkers."""
    return frozenset(_imports(tree_of(path), late=late))


@cache
def tree_of(path: Path) -> ast.Module:
    """The parsed source."""
    return ast.parse(path.read_bytes())


@cache
def found_files(module: str) -> tuple[Path, ...]:
    """The files of ours that an import of `module`, which may be a name in one, executes."""
    parts = module.split(".")
    packages = (ROOT.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1))
    modules = (ROOT.joinpath(*parts[:n]).with_suffix(".py") for n in (len(parts), len(parts) - 1))
    return tuple(path for path in (*packages, *modules) if path.is_file())


def _imports(node: ast.AST, *, late: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        elif late or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _imports(child, late=late)
