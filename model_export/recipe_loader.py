"""Reads a recipe from a TOML file and checks it whole, before anything is downloaded.

An error names the file, the table and the key at fault, and the nearest key that exists. No model
is opened here: `fetch` opens the source, `quantize` applies the precision.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, get_args

from msgspec.structs import replace

from model_export.recipe import DecoderRecipe, EncoderRecipe, EncoderTask, Recipe
from model_export.recipe_decoder import decoder_recipe
from model_export.recipe_encoder import encoder_recipe
from model_export.recipe_tables import suggest
from model_export.reporting import ExportError

R = TypeVar("R")

SHIPPED = Path(__file__).parent / "recipes"
_DECODER_TASK = "text-generation"
_TASKS = (_DECODER_TASK, *get_args(EncoderTask))


def shipped_recipes() -> tuple[str, ...]:
    """Returns the names that `load_recipe` takes without a path."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_recipe(name_or_path: str) -> DecoderRecipe | EncoderRecipe:
    """Reads a shipped recipe by its name, or any TOML file. Raises ExportError."""
    return _load(_locate(name_or_path), _any_recipe)


def load_decoder_recipe(name_or_path: str) -> DecoderRecipe:
    """Reads a recipe that has to be a decoder's. Raises ExportError."""
    return _load(_locate(name_or_path), _decoder_recipe)


def load_sibling_recipe(name_or_path: str, context_length: int) -> DecoderRecipe:
    """Reads the recipe of a draft model, for the context of the model that it guesses for.

    Without its prefix, as the model's own is what is baked. Raises ExportError.
    """
    recipe = load_decoder_recipe(name_or_path)
    check_transformers(recipe)
    return replace(
        recipe, export=replace(recipe.export, context_length=context_length), prefix=None
    )


def check_transformers(recipe: Recipe) -> None:
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


def _load(path: Path, parse: Callable[[dict[str, Any], Path], R]) -> R:
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(f"Cannot read the recipe {path}: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ExportError(f"The recipe {path} is not TOML: {error}.") from None
    try:
        return parse(tables, path)
    except ExportError as error:
        raise ExportError(f"The recipe {path}: {error}") from None


def _locate(name_or_path: str, directory: Path = Path()) -> Path:
    """Finds a recipe's file. A path is relative to `directory`."""
    shipped = SHIPPED / f"{name_or_path}.toml"
    if shipped.parent == SHIPPED and shipped.is_file():
        return shipped
    path = directory / Path(name_or_path).expanduser()
    if path.is_file() or path.suffix == ".toml":
        return path
    raise ExportError(
        f"No recipe is called {name_or_path!r}{suggest(name_or_path, shipped_recipes())} "
        f"Shipped are: {', '.join(shipped_recipes())}. Any other is the path of a TOML file."
    )


def _any_recipe(tables: dict[str, Any], path: Path) -> DecoderRecipe | EncoderRecipe:
    export = tables.get("export")
    task = export.get("task", _DECODER_TASK) if isinstance(export, dict) else _DECODER_TASK
    if task not in _TASKS:
        raise ExportError(
            f"[export] task is {task!r}, which is none{suggest(str(task), _TASKS)} Known are: "
            f"{', '.join(_TASKS)}."
        )
    return _decoder_recipe(tables, path) if task == _DECODER_TASK else encoder_recipe(tables, path)


def _decoder_recipe(tables: dict[str, Any], path: Path) -> DecoderRecipe:
    """Parses a decoder's recipe, and reads the one that its [draft] names."""
    recipe = decoder_recipe(tables, path)
    draft = recipe.draft
    if draft is None or draft.recipe is None:
        return recipe
    try:
        sibling = _locate(draft.recipe, path.parent).resolve()
        if sibling == path.resolve():
            raise ExportError("it is this recipe itself: name that of a smaller model.")
        _load(sibling, _sibling_recipe)
    except ExportError as error:
        raise ExportError(f"[draft] recipe: {error}") from None
    name = sibling.stem if sibling.parent == SHIPPED.resolve() else str(sibling)
    return replace(recipe, draft=replace(draft, recipe=name))


def _sibling_recipe(tables: dict[str, Any], path: Path) -> DecoderRecipe:
    """Parses the recipe of a draft model, which has none of its own."""
    if "draft" in tables:
        raise ExportError("it has a [draft] itself, and a draft model cannot have one.")
    recipe = _any_recipe(tables, path)
    if not isinstance(recipe, DecoderRecipe):
        raise ExportError("it is an encoder's, and a draft model is a decoder.")
    return recipe
