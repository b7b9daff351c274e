"""Measures what a peer needs on a disk: its packages and the model, without Python itself.

An image's size over that of its base, near enough to be compared without building one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


@dataclass(frozen=True, slots=True)
class Footprint:
    """The distributions that it needs, and files or directories besides."""

    packages: frozenset[str]
    paths: tuple[Path, ...]


def installed_mb(footprint: Footprint) -> float:
    """Returns the installed size in megabytes (1e6 bytes)."""
    found = filter(None, map(_found, footprint.packages))
    packages = sum(_size_of(package) for package in found)
    return (packages + sum(_tree_size(path) for path in footprint.paths)) / 1e6


def locked(lock: Path) -> frozenset[str]:
    """The packages that one of requirements/ pins."""
    pins = (line.partition("==") for line in lock.read_text().splitlines() if line[:1].isalnum())
    return frozenset(canonicalize_name(name) for name, _, _ in pins)


def closure(packages: Iterable[str]) -> frozenset[str]:
    """These and all that they require, as installed here."""
    wanted, known = list(packages), set[str]()
    while wanted:
        name = canonicalize_name(wanted.pop())
        package = None if name in known else _found(name)
        if package is None:
            continue
        known.add(name)
        required = map(Requirement, package.requires or ())
        wanted += [r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    return frozenset(known)


def _found(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def _size_of(package: Distribution) -> int:
    files = (Path(str(package.locate_file(file))) for file in package.files or ())
    return sum(file.stat().st_size for file in files if file.is_file())


def _tree_size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file() and not file.is_symlink())
