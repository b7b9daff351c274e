"""What to export: a TOML file, checked whole before anything is downloaded.

    [model]
    id = "SmolLM2-135M-Instruct"      # the name that clients see
    licence = "Apache-2.0"            # SPDX; one that SPDX does not list: LicenseRef-Name

    [source]                          # exactly one of hub, path, gguf, package
    hub = "HuggingFaceTB/SmolLM2-135M-Instruct"
    revision = "<40 hexadecimal digits>"

    [export]
    context_length = 8192             # the longest sequence, prompt and answer together
    task = "text-generation"          # the default; encoder/recipe.py has the others
    transformers = 5                  # for a model that transformers 4 does not have; else left out

    [precision]                       # the fields of precision.Precision
    [tolerance]                       # how far the quantised model may drift; see docs/precision.md

    [prefix]                          # may be left out
    system_prompt = "You are ..."     # whose keys and values are baked in; see docs/engine.md

It knows nothing of models: `fetch` opens the source, `quantize` applies the precision.
Paths in a recipe are relative to the recipe's own directory.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import msgspec

from model_export.errors import ExportError
from model_export.precision import Precision
from model_export.source import Source, parse_source
from model_export.tables import convert_table, refuse_unknown, suggest

SHIPPED = Path(__file__).parent / "recipes"


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[model]: what the artefact is called, and the SPDX id of the weights' licence."""

    id: str
    licence: str


class AnyExport(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every recipe's [export] may say."""

    transformers: Literal[5] | None = None
    """The transformers that it takes. None: either, and the images take 4."""


class Export(AnyExport, frozen=True):
    """[export]: the longest sequence, in tokens, that the graph's positions allow."""

    context_length: int
    task: Literal["text-generation"] = "text-generation"


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


class AnyRecipe(msgspec.Struct, frozen=True):
    """What every checked recipe has. `name` is its file's stem."""

    name: str
    model: Model
    source: Source
    precision: Precision
    export: AnyExport


class Recipe(AnyRecipe, frozen=True):
    """A decoder's."""

    export: Export
    tolerance: Tolerance
    prefix: Prefix | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """A recipe's tables before they are checked, and the file that they are from."""

    path: Path
    tables: dict[str, Any]


_TABLES = ("model", "source", "export", "precision", "tolerance")


def shipped_recipes() -> tuple[str, ...]:
    """Names that `load_recipe` takes without a path."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_recipe(name_or_path: str) -> Recipe:
    """Reads a decoder's shipped recipe by name, or any TOML file of one. Raises ExportError."""
    document = read_document(name_or_path)
    with naming(document.path):
        return _parse(document.tables, document.path)


def read_document(name_or_path: str) -> Document:
    """A shipped recipe by name, or any TOML file. Raises ExportError."""
    path = _locate(name_or_path)
    try:
        return Document(path, tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ExportError(f"Cannot read the recipe {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExportError(f"The recipe {path} is not TOML: {error}.") from None


def check_transformers(recipe: AnyRecipe) -> None:
    """Raises ExportError where the recipe takes another transformers than the installed one."""
    needed = recipe.export.transformers
    if needed is None:
        return
    installed = version("transformers")
    if installed.partition(".")[0] != str(needed):
        raise ExportError(
            f"The recipe {recipe.name} takes transformers {needed}, and {installed} is installed. "
            f"`make export` and `make images` choose by the recipe; by hand it is "
            f".venv-transformers{needed}/bin/python -m model_export, or `docker build --build-arg "
            f"TRANSFORMERS={needed}` (docs/families.md)."
        )


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Puts the recipe's file in front of what is wrong with it."""
    try:
        yield
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
        f"No recipe is called {name_or_path!r}{suggest(name_or_path, shipped_recipes())} "
        f"Shipped are: {', '.join(shipped_recipes())}. Any other is the path of a TOML file."
    )


def _parse(document: dict[str, Any], path: Path) -> Recipe:
    check_tables(document, optional=("prefix",))
    prefix = document.get("prefix")
    recipe = Recipe(
        name=path.stem,
        model=parse_model(document["model"]),
        source=parse_source(document["source"], path.parent),
        export=convert_table(document["export"], Export, "export"),
        precision=convert_table(document["precision"], Precision, "precision"),
        tolerance=convert_table(document["tolerance"], Tolerance, "tolerance"),
        prefix=None if prefix is None else convert_table(prefix, Prefix, "prefix"),
    )
    _check_values(recipe)
    return recipe


def check_tables(document: dict[str, Any], optional: tuple[str, ...] = ()) -> None:
    """Raises ExportError for a table that is missing, and for one that nobody knows."""
    refuse_unknown(document, _TABLES + optional, "table")
    for table in (*_TABLES, *(name for name in optional if name in document)):
        if not isinstance(document.get(table), dict):
            raise ExportError(f"the table [{table}] is missing.")


def parse_model(table: dict[str, Any]) -> Model:
    """[model]. Raises ExportError."""
    model = convert_table(table, Model, "model")
    if not model.id.strip():
        raise ExportError("[model] id is empty.")
    if not model.licence.strip():
        raise ExportError("[model] licence is empty: name its SPDX id.")
    return model


def _check_values(recipe: Recipe) -> None:
    tolerance = recipe.tolerance
    checks = (
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
