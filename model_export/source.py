"""Where a recipe's weights come from: its table [source].

It opens nothing: `fetch` does. Called by both kinds of recipes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from model_export.errors import ExportError
from model_export.tables import convert_table

COMMIT = re.compile(r"[0-9a-f]{40}")


class HubSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A repository of a Hugging Face hub at one commit."""

    hub: str
    revision: str


class FolderSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A folder as `save_pretrained` writes it."""

    path: Path


class GgufSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A GGUF file."""

    gguf: Path


class PackageSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A GGUF file, or a folder, inside an installed Python package."""

    package: str
    version: str
    file: str | None = None
    folder: str | None = None


Source = HubSource | FolderSource | GgufSource | PackageSource


_SOURCES: dict[str, type[HubSource | FolderSource | GgufSource | PackageSource]] = {
    "hub": HubSource,
    "path": FolderSource,
    "gguf": GgufSource,
    "package": PackageSource,
}


def parse_source(table: dict[str, Any], directory: Path) -> Source:
    """[source], with its paths made absolute. Raises ExportError."""
    kinds = [key for key in _SOURCES if key in table]
    if len(kinds) != 1:
        found = f"it has {' and '.join(kinds)}" if kinds else "it has none"
        raise ExportError(f"[source] takes exactly one of {', '.join(_SOURCES)}; {found}.")
    source: Source = convert_table(table, _SOURCES[kinds[0]], "source")
    if isinstance(source, FolderSource):
        return FolderSource(path=(directory / source.path.expanduser()).resolve())
    if isinstance(source, GgufSource):
        return GgufSource(gguf=(directory / source.gguf.expanduser()).resolve())
    if isinstance(source, PackageSource) and (source.file is None) == (source.folder is None):
        raise ExportError("[source] package takes exactly one of file (a GGUF file) and folder.")
    if isinstance(source, HubSource) and not COMMIT.fullmatch(source.revision):
        raise ExportError(
            f"[source] revision is {source.revision!r}, but must be the commit's 40 hexadecimal "
            f"digits: a branch or a tag can move, and the same recipe would make another model."
        )
    return source
