"""Parses the tables that every recipe has, and names what is wrong with one."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from model_export.recipe import (
    FolderSource,
    GgufSource,
    HubSource,
    ModelTable,
    PackageSource,
    Source,
)
from model_export.reporting import ExportError

T = TypeVar("T")

_TABLES = ("model", "source", "export", "precision", "tolerance")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SOURCES: dict[str, type[HubSource | FolderSource | GgufSource | PackageSource]] = {
    "hub": HubSource,
    "path": FolderSource,
    "gguf": GgufSource,
    "package": PackageSource,
}


def parse_model(table: dict[str, Any]) -> ModelTable:
    """Parses [model]. Raises ExportError."""
    model = parse_table(table, ModelTable, "model")
    if not model.id.strip():
        raise ExportError("[model] id is empty.")
    if not model.licence.strip():
        raise ExportError("[model] licence is empty: name its SPDX id.")
    return model


def parse_source(table: dict[str, Any], directory: Path) -> Source:
    """Parses [source]. Paths become absolute: they are relative to `directory`."""
    kinds = [key for key in _SOURCES if key in table]
    if len(kinds) != 1:
        found = f"it has {' and '.join(kinds)}" if kinds else "it has none"
        raise ExportError(f"[source] takes exactly one of {', '.join(_SOURCES)}; {found}.")
    source: Source = parse_table(table, _SOURCES[kinds[0]], "source")
    if isinstance(source, FolderSource):
        return FolderSource(path=(directory / source.path.expanduser()).resolve())
    if isinstance(source, GgufSource):
        return GgufSource(gguf=(directory / source.gguf.expanduser()).resolve())
    if isinstance(source, PackageSource) and (source.file is None) == (source.folder is None):
        raise ExportError("[source] package takes exactly one of file (a GGUF file) and folder.")
    if isinstance(source, HubSource):
        _check_revision(source.revision)
    return source


def _check_revision(revision: str | None) -> None:
    if revision is not None and not _COMMIT.fullmatch(revision):
        raise ExportError(
            f"[source] revision is {revision!r}, but must be the commit's 40 hexadecimal "
            f"digits: a branch or a tag can move, and the same recipe would make another model."
        )


def check_tables(document: dict[str, Any], optional: tuple[str, ...] = ()) -> None:
    """Refuses a table that is missing, and one that is unknown."""
    known = tuple(dict.fromkeys(_TABLES + optional))
    _refuse_unknown(document, known, "table")
    for table in known:
        if table in optional and table not in document:
            continue
        if not isinstance(document.get(table), dict):
            raise ExportError(f"the table [{table}] is missing.")


def parse_table(table: dict[str, Any], to: type[T], name: str) -> T:
    """Converts `table` to a struct or a dataclass. Raises ExportError that names the key."""
    known = tuple(field.name for field in msgspec.inspect.type_info(to).fields)  # type: ignore[attr-defined]
    _refuse_unknown(table, known, f"key in [{name}]")
    try:
        return msgspec.convert(table, to, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise ExportError(f"[{name}] {_in_words(str(error))}.") from None


def _decode_path(to: type, value: Any) -> Any:
    if to is Path and isinstance(value, str):
        return Path(value)
    raise msgspec.ValidationError(f"Expected `str`, got `{type(value).__name__}`")


def _in_words(message: str) -> str:
    """Puts the key first: msgspec says "Expected `int`, got `str` - at `$.max_kl`"."""
    problem, separator, where = message.partition(" - at `$.")
    problem = problem.replace("Object missing required field", "lacks the key")
    if not separator:
        return problem
    return f"{where.rstrip('`')}: {problem[0].lower()}{problem[1:]}"


def _refuse_unknown(table: dict[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in table:
        if key not in known:
            raise ExportError(
                f"{key!r} is not a {what}{suggest(key, known)} Known are: {', '.join(known)}."
            )


def suggest(word: str, known: tuple[str, ...]) -> str:
    """Returns the end of a sentence: a full stop, or the nearest of `known` and a question mark."""
    nearest = difflib.get_close_matches(word, known, n=1)
    return f": did you mean {nearest[0]!r}?" if nearest else "."
