"""What to export: a TOML file, checked whole before anything is downloaded.

    [model]
    id = "SmolLM2-135M-Instruct"      # the name that clients see
    licence = "Apache-2.0"            # SPDX

    [source]                          # exactly one of hub, path, gguf, package
    hub = "HuggingFaceTB/SmolLM2-135M-Instruct"
    revision = "<40 hexadecimal digits>"

    [export]
    context_length = 8192             # the longest sequence, prompt and answer together

    [precision]                       # the fields of precision.Precision
    [tolerance]                       # how far the quantised model may drift; see docs/precision.md

    [prefix]                          # may be left out
    system_prompt = "You are ..."     # whose keys and values are baked in; see docs/engine.md

It knows nothing of models: `fetch` opens the source, `quantize` applies the precision.
Paths in a recipe are relative to the recipe's own directory.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from model_export.errors import ExportError
from model_export.precision import Precision

T = TypeVar("T")

SHIPPED = Path(__file__).parent / "recipes"
COMMIT = re.compile(r"[0-9a-f]{40}")


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[model]: what the artefact is called, and the SPDX id of the weights' licence."""

    id: str
    licence: str


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
    """A GGUF file inside an installed Python package."""

    package: str
    version: str
    file: str


Source = HubSource | FolderSource | GgufSource | PackageSource


class Export(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[export]: the longest sequence, in tokens, that the graph's positions allow."""

    context_length: int


class Tolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[tolerance]: how far the quantised graph may drift from the fp32 one on the shipped text."""

    max_kl: float
    """Mean Kullback-Leibler divergence a token, in nats."""
    min_top1_agreement: float
    """Share of positions at which both graphs put the same token first."""
    max_perplexity_ratio: float
    """Perplexity of the quantised graph over that of the fp32 graph."""


class Prefix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[prefix]: the system message of the chats that find their beginning computed."""

    system_prompt: str


class Recipe(msgspec.Struct, frozen=True):
    """One checked recipe. `name` is its file's stem."""

    name: str
    model: Model
    source: Source
    export: Export
    precision: Precision
    tolerance: Tolerance
    prefix: Prefix | None = None


_SOURCES: dict[str, type[HubSource | FolderSource | GgufSource | PackageSource]] = {
    "hub": HubSource,
    "path": FolderSource,
    "gguf": GgufSource,
    "package": PackageSource,
}
_TABLES = ("model", "source", "export", "precision", "tolerance")


def shipped_recipes() -> tuple[str, ...]:
    """Names that `load_recipe` takes without a path."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_recipe(name_or_path: str) -> Recipe:
    """Reads a shipped recipe by name, or any TOML file. Raises ExportError."""
    path = _locate(name_or_path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(f"Cannot read the recipe {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExportError(f"The recipe {path} is not TOML: {error}.") from None
    try:
        return _parse(document, path)
    except ExportError as error:
        raise ExportError(f"The recipe {path}: {error}") from None


def _locate(name_or_path: str) -> Path:
    shipped = SHIPPED / f"{name_or_path}.toml"
    if shipped.parent == SHIPPED and shipped.is_file():
        return shipped
    path = Path(name_or_path)
    if path.is_file() or path.suffix == ".toml":
        return path
    raise ExportError(
        f"No recipe is called {name_or_path!r}{_suggest(name_or_path, shipped_recipes())} "
        f"Shipped are: {', '.join(shipped_recipes())}. Any other is the path of a TOML file."
    )


def _parse(document: dict[str, Any], path: Path) -> Recipe:
    _refuse_unknown(document, (*_TABLES, "prefix"), "table")
    optional = ["prefix"] if "prefix" in document else []
    for table in (*_TABLES, *optional):
        if not isinstance(document.get(table), dict):
            raise ExportError(f"the table [{table}] is missing.")
    recipe = Recipe(
        name=path.stem,
        model=_convert(document["model"], Model, "model"),
        source=_parse_source(document["source"], path.parent),
        export=_convert(document["export"], Export, "export"),
        precision=_convert(document["precision"], Precision, "precision"),
        tolerance=_convert(document["tolerance"], Tolerance, "tolerance"),
        prefix=_convert(document["prefix"], Prefix, "prefix") if optional else None,
    )
    _check_values(recipe)
    return recipe


def _parse_source(table: dict[str, Any], directory: Path) -> Source:
    kinds = [key for key in _SOURCES if key in table]
    if len(kinds) != 1:
        found = f"it has {' and '.join(kinds)}" if kinds else "it has none"
        raise ExportError(f"[source] takes exactly one of {', '.join(_SOURCES)}; {found}.")
    source: Source = _convert(table, _SOURCES[kinds[0]], "source")
    if isinstance(source, FolderSource):
        return FolderSource(path=(directory / source.path.expanduser()).resolve())
    if isinstance(source, GgufSource):
        return GgufSource(gguf=(directory / source.gguf.expanduser()).resolve())
    if isinstance(source, HubSource) and not COMMIT.fullmatch(source.revision):
        raise ExportError(
            f"[source] revision is {source.revision!r}, but must be the commit's 40 hexadecimal "
            f"digits: a branch or a tag can move, and the same recipe would make another model."
        )
    return source


def _convert(table: dict[str, Any], to: type[T], name: str) -> T:
    """`table` as `to`. Raises ExportError that names the key at fault."""
    _refuse_unknown(table, _field_names(to), f"key in [{name}]")
    try:
        return msgspec.convert(table, to, dec_hook=_decode_path)
    except msgspec.ValidationError as error:
        raise ExportError(f"[{name}] {_in_words(str(error))}.") from None


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


def _refuse_unknown(table: dict[str, Any], known: tuple[str, ...], what: str) -> None:
    for key in table:
        if key not in known:
            raise ExportError(
                f"{key!r} is not a {what}{_suggest(key, known)} Known are: {', '.join(known)}."
            )


def _suggest(word: str, known: tuple[str, ...]) -> str:
    nearest = difflib.get_close_matches(word, known, n=1)
    return f": did you mean {nearest[0]!r}?" if nearest else "."


def _check_values(recipe: Recipe) -> None:
    tolerance = recipe.tolerance
    checks = (
        (bool(recipe.model.id.strip()), "[model] id is empty"),
        (bool(recipe.model.licence.strip()), "[model] licence is empty: name its SPDX id"),
        (recipe.export.context_length >= 16, "[export] context_length must be at least 16"),
        (tolerance.max_kl >= 0, "[tolerance] max_kl must not be negative"),
        (
            0 <= tolerance.min_top1_agreement <= 1,
            "[tolerance] min_top1_agreement is a share: 0.0 to 1.0",
        ),
        (tolerance.max_perplexity_ratio > 0, "[tolerance] max_perplexity_ratio must be above 0"),
        (
            recipe.prefix is None or bool(recipe.prefix.system_prompt.strip()),
            "[prefix] system_prompt is empty: name one, or leave the table out",
        ),
    )
    for holds, problem in checks:
        if not holds:
            raise ExportError(f"{problem}.")
