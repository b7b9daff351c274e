"""Reads a recipe from a TOML file and checks it whole, before anything is downloaded.

An error names the file, the table and the key at fault, and the nearest key that exists. No model
is opened here: `fetch` opens the source, `quantize` applies the precision.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from model_export.recipe import (
    POOLING_MODES,
    CalibrationTable,
    DecoderExport,
    DecoderRecipe,
    DecoderTolerance,
    EmbeddingTolerance,
    EncoderExport,
    EncoderRecipe,
    EncoderTask,
    FolderSource,
    GgufSource,
    HubSource,
    ModelTable,
    PackageSource,
    Precision,
    PrefixTable,
    Recipe,
    ScoreTolerance,
    Source,
)
from model_export.reporting import ExportError

T = TypeVar("T")
R = TypeVar("R")

SHIPPED = Path(__file__).parent / "recipes"
_TABLES = ("model", "source", "export", "precision", "tolerance")
_ENCODER_DEFAULT = {"weights": "int4"}
_DECODER_TASK = "text-generation"
_TASKS = (_DECODER_TASK, *get_args(EncoderTask))
_LEAST_CALIBRATION = 1_000
"""Characters of a recipe's own calibration text: about 250 tokens."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SOURCES: dict[str, type[HubSource | FolderSource | GgufSource | PackageSource]] = {
    "hub": HubSource,
    "path": FolderSource,
    "gguf": GgufSource,
    "package": PackageSource,
}


def shipped_recipes() -> tuple[str, ...]:
    """Returns the names that `load_recipe` takes without a path."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.toml")))


def load_recipe(name_or_path: str) -> DecoderRecipe | EncoderRecipe:
    """Reads a shipped recipe by its name, or any TOML file. Raises ExportError."""
    return _load(name_or_path, _any_recipe)


def load_decoder_recipe(name_or_path: str) -> DecoderRecipe:
    """Reads a recipe that has to be a decoder's. Raises ExportError."""
    return _load(name_or_path, _decoder_recipe)


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


def _load(name_or_path: str, parse: Callable[[dict[str, Any], Path], R]) -> R:
    path = _locate(name_or_path)
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


def _any_recipe(tables: dict[str, Any], path: Path) -> DecoderRecipe | EncoderRecipe:
    export = tables.get("export")
    task = export.get("task", _DECODER_TASK) if isinstance(export, dict) else _DECODER_TASK
    if task not in _TASKS:
        raise ExportError(
            f"[export] task is {task!r}, which is none{_suggest(str(task), _TASKS)} Known are: "
            f"{', '.join(_TASKS)}."
        )
    return _decoder_recipe(tables, path) if task == _DECODER_TASK else _encoder_recipe(tables, path)


def _decoder_recipe(tables: dict[str, Any], path: Path) -> DecoderRecipe:
    _check_tables(tables, optional=("precision", "prefix", "calibration"))
    prefix, calibration = tables.get("prefix"), tables.get("calibration")
    recipe = DecoderRecipe(
        name=path.stem,
        model=_parse_model(tables["model"]),
        source=_parse_source(tables["source"], path.parent),
        export=_parse_table(tables["export"], DecoderExport, "export"),
        precision=_parse_table(tables.get("precision", {}), Precision, "precision"),
        tolerance=_parse_table(tables["tolerance"], DecoderTolerance, "tolerance"),
        prefix=None if prefix is None else _parse_table(prefix, PrefixTable, "prefix"),
        calibration=None if calibration is None else _parse_calibration(calibration, path.parent),
    )
    _check_decoder(recipe)
    return recipe


def _check_decoder(recipe: DecoderRecipe) -> None:
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
        (
            recipe.calibration is None or recipe.precision.is_calibrated,
            '[calibration] is for affine blocks and weights = "auto" alone: leave it out',
        ),
    )
    for holds, problem in checks:
        if not holds:
            raise ExportError(f"{problem}.")


def _parse_calibration(table: dict[str, Any], directory: Path) -> CalibrationTable:
    """Reads the text, whose path is relative to `directory`."""
    named = _parse_table(table, CalibrationTable, "calibration").text
    path = (directory / Path(named).expanduser()).resolve()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        problem = f"the file {path} cannot be read: {error.strerror}. Name one of plain text"
    except UnicodeDecodeError:
        problem = f"the file {path} is not UTF-8: convert it"
    else:
        if len(text.strip()) >= _LEAST_CALIBRATION:
            return CalibrationTable(text)
        problem = (
            f"the file {path} has {len(text.strip())} characters, too few to measure anything: "
            f"give it at least {_LEAST_CALIBRATION:,} of what the model will read, better 10,000"
        )
    raise ExportError(
        f"[calibration] text: {problem}, or leave the table out, and the shipped text is read."
    )


def _encoder_recipe(tables: dict[str, Any], path: Path) -> EncoderRecipe:
    _check_tables(tables)
    if "context_length" in tables["export"]:
        raise ExportError(
            "[export] context_length is a decoder's: an encoder's longest text is max_tokens."
        )
    export = _parse_table(tables["export"], EncoderExport, "export")
    kind: type[EmbeddingTolerance | ScoreTolerance]
    kind = EmbeddingTolerance if export.task == "feature-extraction" else ScoreTolerance
    recipe = EncoderRecipe(
        name=path.stem,
        model=_parse_model(tables["model"]),
        source=_parse_source(tables["source"], path.parent),
        export=export,
        precision=_parse_table(_ENCODER_DEFAULT | tables["precision"], Precision, "precision"),
        tolerance=_parse_table(tables["tolerance"], kind, "tolerance"),
    )
    _check_encoder(recipe, tables["precision"])
    return recipe


def _check_encoder(recipe: EncoderRecipe, precision: dict[str, Any]) -> None:
    """Checks values; `precision` is the table as written, which may name no key of decoders."""
    export, source = recipe.export, recipe.source
    for key in ("lm_head", "mixed_layers"):
        if key in precision:
            raise ExportError(f"[precision] {key} is a decoder's: an encoder has no output to it.")
    if precision.get("weights") == "auto":
        raise ExportError('[precision] weights = "auto" is a decoder\'s: name one of the others.')
    if isinstance(source, GgufSource) or (isinstance(source, PackageSource) and source.file):
        raise ExportError(
            "[source] an encoder is exported from a hub or a folder of safetensors: a GGUF file "
            "does not say how to pool."
        )
    if export.max_tokens is not None and export.max_tokens < 2:
        raise ExportError("[export] max_tokens must be at least 2.")
    pools = export.pooling is not None or export.normalize is not None
    if pools and export.task != "feature-extraction":
        raise ExportError(f"[export] pooling and normalize are embeddings', not {export.task}'s.")
    if export.pooling is not None and export.pooling not in POOLING_MODES:
        raise ExportError(
            f"[export] pooling is {export.pooling!r}{_suggest(export.pooling, POOLING_MODES)} "
            f"Known are: {', '.join(POOLING_MODES)}."
        )
    _check_judge(export)
    _check_encoder_tolerance(recipe.tolerance)


def _check_judge(export: EncoderExport) -> None:
    judge = export.judge
    if judge is None:
        return
    if export.task != "text-ranking":
        raise ExportError(f"[export.judge] is a ranker's, not {export.task}'s.")
    for name, least in (("query", 1), ("document", 1), ("instruction", 0)):
        if not least <= judge.template.count(f"{{{name}}}") <= 1:
            times = "exactly" if least else "at most"
            raise ExportError(f"[export.judge] template must have {{{name}}} {times} once.")
    if ("{instruction}" in judge.template) != (judge.instruction is not None):
        raise ExportError(
            "[export.judge] instruction is what {instruction} in the template stands for where a "
            "request names none: write both, or neither."
        )


def _check_encoder_tolerance(tolerance: EmbeddingTolerance | ScoreTolerance) -> None:
    if isinstance(tolerance, EmbeddingTolerance):
        for key in ("min_mean_cosine", "min_cosine"):
            if not -1 <= getattr(tolerance, key) <= 1:
                raise ExportError(f"[tolerance] {key} is a cosine: -1.0 to 1.0.")
    elif not 0 <= tolerance.min_top1_agreement <= 1:
        raise ExportError("[tolerance] min_top1_agreement is a share: 0.0 to 1.0.")
    elif not tolerance.max_score_difference >= 0:
        raise ExportError("[tolerance] max_score_difference must not be negative.")


def _parse_model(table: dict[str, Any]) -> ModelTable:
    model = _parse_table(table, ModelTable, "model")
    if not model.id.strip():
        raise ExportError("[model] id is empty.")
    if not model.licence.strip():
        raise ExportError("[model] licence is empty: name its SPDX id.")
    return model


def _parse_source(table: dict[str, Any], directory: Path) -> Source:
    """Paths become absolute: they are relative to `directory`."""
    kinds = [key for key in _SOURCES if key in table]
    if len(kinds) != 1:
        found = f"it has {' and '.join(kinds)}" if kinds else "it has none"
        raise ExportError(f"[source] takes exactly one of {', '.join(_SOURCES)}; {found}.")
    source: Source = _parse_table(table, _SOURCES[kinds[0]], "source")
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


def _check_tables(document: dict[str, Any], optional: tuple[str, ...] = ()) -> None:
    """Refuses a table that is missing, and one that is unknown."""
    known = tuple(dict.fromkeys(_TABLES + optional))
    _refuse_unknown(document, known, "table")
    for table in known:
        if table in optional and table not in document:
            continue
        if not isinstance(document.get(table), dict):
            raise ExportError(f"the table [{table}] is missing.")


def _parse_table(table: dict[str, Any], to: type[T], name: str) -> T:
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
                f"{key!r} is not a {what}{_suggest(key, known)} Known are: {', '.join(known)}."
            )


def _suggest(word: str, known: tuple[str, ...]) -> str:
    """Returns the end of a sentence: a full stop, or the nearest of `known` and a question mark."""
    nearest = difflib.get_close_matches(word, known, n=1)
    return f": did you mean {nearest[0]!r}?" if nearest else "."
