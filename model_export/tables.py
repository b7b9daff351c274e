"""Tables of a TOML file as structs, with errors that name the key at fault. Knows no recipe."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from model_export.errors import ExportError

T = TypeVar("T")


def convert_table(table: dict[str, Any], to: type[T], name: str) -> T:
    """`table` as `to`. Raises ExportError that names the key at fault."""
    refuse_unknown(table, _field_names(to), f"key in [{name}]")
    try:
        return msgspec.convert(table, to, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise ExportError(f"[{name}] {_in_words(str(error))}.") from None


def refuse_unknown(table: dict[str, Any], known: tuple[str, ...], what: str) -> None:
    """Raises ExportError for a key that is not `known`, with the nearest one that is."""
    for key in table:
        if key not in known:
            raise ExportError(
                f"{key!r} is not a {what}{suggest(key, known)} Known are: {', '.join(known)}."
            )


def suggest(word: str, known: tuple[str, ...]) -> str:
    """The end of a sentence: a full stop, or the nearest of `known` and a question mark."""
    nearest = difflib.get_close_matches(word, known, n=1)
    return f": did you mean {nearest[0]!r}?" if nearest else "."


def _decode_path(to: type, value: Any) -> Any:
    if to is Path and isinstance(value, str):
        return Path(value)
    raise msgspec.ValidationError(f"Expected `str`, got `{type(value).__name__}`")


def _in_words(message: str) -> str:
    """msgspec's "Expected `int`, got `str` - at `$.max_kl`" as "max_kl: expected `int`, ..."."""
    problem, separator, where = message.partition(" - at `$.")
    problem = problem.replace("Object missing required field", "lacks the key")
    if not separator:
        return problem
    return f"{where.rstrip('`')}: {problem[0].lower()}{problem[1:]}"


def _field_names(of: type) -> tuple[str, ...]:
    return tuple(field.name for field in msgspec.inspect.type_info(of).fields)  # type: ignore[attr-defined]
