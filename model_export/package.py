"""Writes an artefact's small files, and puts a finished artefact in its place.

It is built in a hidden sibling of its destination (scratch.py) and renamed when all is done, so
that nothing half made is ever in its place. handlers/artifact/manifest.py says what the files mean.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers

from handlers.artifact.manifest import CHAT_TEMPLATE, TOKENIZER, TOOL_TEMPLATE
from model_export.fetch.load import LoadedModel
from model_export.manifest import ManifestFields, make_manifest, save_manifest
from model_export.recipe import DecoderRecipe, EncoderRecipe, Recipe

if TYPE_CHECKING:
    from handlers.artifact.manifest import FileInfo, Manifest

REPLACED = "replaced"
"""Where an older artefact waits beside the new one until it is no longer needed."""
LICENCE_TEXTS = Path(__file__).parent / "licences"


def complete(
    directory: Path,
    recipe: DecoderRecipe | EncoderRecipe,
    loaded: LoadedModel,
    fields: ManifestFields,
    precision: str,
    describe: Callable[[Path], dict[str, FileInfo]],
) -> Manifest:
    """Writes all that an artefact has beside its graph. Returns its manifest, without figures."""
    write_sidecars(directory, recipe, loaded)
    manifest = make_manifest(recipe, loaded, fields, precision, describe(directory))
    save_manifest(directory, manifest)
    return manifest


def publish(artefact: Path, out: Path) -> None:
    """Renames a finished artefact to `out`; an older one there goes with the scratch directory.

    When the second rename fails, or a signal comes between the two, the older one is put back.
    """
    replaced = artefact.parent / REPLACED
    try:
        if out.exists():
            out.rename(replaced)
        artefact.rename(out)
    except BaseException:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        raise


def write_sidecars(directory: Path, recipe: Recipe, loaded: LoadedModel) -> None:
    """Writes tokenizer.json, the chat templates and the licence into an existing directory."""
    backend = _tokenizer_of(loaded)
    # A training run's settings: the runtime neither cuts nor pads a prompt.
    backend.no_truncation()
    backend.no_padding()
    (directory / TOKENIZER).write_text(fast_load_json(backend), encoding="utf-8")
    templates = {CHAT_TEMPLATE: loaded.chat_template, TOOL_TEMPLATE: loaded.tool_template}
    for name, template in templates.items():
        if template is not None:
            (directory / name).write_text(template, encoding="utf-8")
    _write_licence(directory, recipe, loaded)


def _tokenizer_of(loaded: LoadedModel) -> tokenizers.Tokenizer:
    """Returns a copy without the added tokens for which the model has no row: they are text.

    Gemma 3 of text alone has <image_soft_token>, 262144, and embeddings for 0 to 262143.
    """
    content = json.loads(loaded.tokenizer.backend_tokenizer.to_str())
    rows = loaded.vocabulary_size
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < rows]
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def _write_licence(directory: Path, recipe: Recipe, loaded: LoadedModel) -> None:
    """Copies the licence files of the source, or writes the text; adds the notice it asks for."""
    licence = recipe.model.licence
    for path in loaded.licence_files:
        shutil.copyfile(path, directory / path.name)
    if not any(_has_terms(path) for path in loaded.licence_files):
        text = _shipped_text(f"{licence}.txt") or f"{_where_its_text_is(licence)}\n"
        (directory / "LICENSE").write_text(
            f"The weights of {recipe.model.id} ({loaded.source}, {loaded.revision}) are under the "
            f"licence {licence}.\n\n{text}",
            encoding="utf-8",
        )
    if notice := _shipped_text(f"{licence}.notice.txt"):
        with (directory / "NOTICE").open("a", encoding="utf-8") as file:
            file.write(notice)


def _has_terms(path: Path) -> bool:
    """Tells a licence from a notice or a policy."""
    return path.name.upper().startswith(("LICENSE", "LICENCE"))


def _shipped_text(name: str) -> str:
    """Reads a file of LICENCE_TEXTS; returns "" where it has none of that name."""
    path = LICENCE_TEXTS / name
    shipped = path.parent == LICENCE_TEXTS and path.is_file()
    return path.read_text(encoding="utf-8") if shipped else ""


def _where_its_text_is(licence: str) -> str:
    """Says where to read a licence; SPDX lists all but those whose names begin as below."""
    if licence.startswith("LicenseRef-"):
        return "Its text is where the weights are from."
    return f"Its text: https://spdx.org/licenses/{licence}.html"


def fast_load_json(tokenizer: tokenizers.Tokenizer) -> str:
    """Returns the JSON of an equal tokenizer that the tokenizers package reads fastest.

    The reader puts the vocabulary into a B-tree, which takes sorted keys with fewer comparisons and
    cache misses, and holds every merge as a JSON value before it becomes a merge: one string, as
    tokenizers wrote it before 0.20, costs less than an array of two. For 49,000 tokens 65 ms
    instead of 95, and 20 MB less at its peak: docs/cold-start.md.

    Two tokenizers are equal when they serialise alike: their JSON holds all that they are. Not so
    where a merge begins as a merges.txt does, which the reader passes over: its own JSON is kept.
    """
    plain: str = tokenizer.to_str()
    content = json.loads(plain)
    if not _can_load_fast(content["model"]):
        return plain
    _sort_and_join(content["model"])
    quick = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return quick if tokenizers.Tokenizer.from_str(quick).to_str() == plain else plain


def _can_load_fast(model: dict[str, Any]) -> bool:
    """Tells whether no token has a space, at which the reader splits a merge's string."""
    return not any(" " in token for pair in model.get("merges", ()) for token in pair)


def _sort_and_join(model: dict[str, Any]) -> None:
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):  # Unigram's is a list, whose places are the ids
        model["vocab"] = dict(sorted(vocabulary.items(), key=lambda item: item[0].encode()))
    if "merges" in model:
        model["merges"] = [" ".join(pair) for pair in model["merges"]]
