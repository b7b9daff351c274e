"""Writes the artefact: the small files beside the graph, the manifest, and the last rename.

The graph is already there (quantize's `save`). An artefact is built in a hidden sibling of its
destination and renamed when all is done, so that nothing half made is ever in its place.
Called by the pipeline; handlers/artifact/manifest.py says what the files mean.
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import tokenizers

from handlers import __version__
from handlers.artifact.manifest import (
    CHAT_TEMPLATE,
    MANIFEST,
    SCHEMA,
    TOKENIZER,
    TOOL_TEMPLATE,
    FileInfo,
    Manifest,
    ModelInfo,
    PrefixInfo,
)
from model_export.end_of_sequence import eos_token_ids
from model_export.fetch.load import LoadedModel
from model_export.fetch.locate import sha256_of
from model_export.quick_tokenizer import quick_json
from model_export.recipe import DecoderRecipe, Recipe
from model_export.reporting import ExportError
from model_export.sampling import sampling_defaults

LICENCE_TEXTS = Path(__file__).parent / "licences"
PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "optimum",
    "optimum-onnx",
    "onnx",
    "onnx-ir",
    "onnxruntime",
)


@contextmanager
def building(out: Path) -> Iterator[Path]:
    """A scratch directory on the file system of `out`; gone when the block ends, however it ends.

    Raises ExportError at once when `out` holds something that is not an artefact.
    """
    if out.exists() and not _replaceable(out):
        raise ExportError(
            f"{out} exists and is not an artefact (it has no {MANIFEST} of one): it is left alone. "
            f"Choose another --out, or delete it."
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{out.name}-building-", dir=out.parent))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch)


def publish(artefact: Path, out: Path) -> None:
    """Renames a finished artefact to `out`; an older one there goes with the scratch directory.

    When the second rename fails, or a signal comes between the two, the older one is put back.
    """
    replaced = artefact.parent / "replaced"
    try:
        if out.exists():
            out.rename(replaced)
        artefact.rename(out)
    except BaseException:
        if replaced.exists() and not out.exists():
            replaced.rename(out)
        raise


def write_texts(directory: Path, recipe: Recipe, loaded: LoadedModel) -> None:
    """tokenizer.json, the chat templates and the licence, into an existing directory."""
    backend = _tokenizer_of(loaded)
    # A training run's settings: the runtime neither cuts nor pads a prompt.
    backend.no_truncation()
    backend.no_padding()
    (directory / TOKENIZER).write_text(quick_json(backend), encoding="utf-8")
    templates = {CHAT_TEMPLATE: loaded.chat_template, TOOL_TEMPLATE: loaded.tool_template}
    for name, template in templates.items():
        if template is not None:
            (directory / name).write_text(template, encoding="utf-8")
    _write_licence(directory, recipe, loaded)


def _tokenizer_of(loaded: LoadedModel) -> tokenizers.Tokenizer:
    """A copy without the added tokens for which the model has no row: they are text.

    Gemma 3 of text alone has <image_soft_token>, 262144, and embeddings for 0 to 262143.
    """
    content = json.loads(loaded.tokenizer.backend_tokenizer.to_str())
    rows = vocabulary_size(loaded)
    content["added_tokens"] = [one for one in content["added_tokens"] if one["id"] < rows]
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def vocabulary_size(loaded: LoadedModel) -> int:
    """A decoder's logits, an encoder's embeddings: a tokenizer may have fewer ids, or more."""
    model: Any = loaded.model
    embeddings = model.get_output_embeddings() or model.get_input_embeddings()
    return int(embeddings.weight.shape[0])


def write_manifest(
    directory: Path,
    recipe: DecoderRecipe,
    loaded: LoadedModel,
    precision: str,
    verification: Mapping[str, Any],
    prefix: PrefixInfo | None = None,
) -> None:
    """manifest.json over all other files in `directory`; the last file to be written."""
    manifest = Manifest(
        schema=SCHEMA,
        task="text-generation",
        model=model_info(recipe, loaded),
        precision=precision,
        vocab_size=vocabulary_size(loaded),
        context_length=recipe.export.context_length,
        eos_token_ids=tuple(i for i in eos_token_ids(loaded) if i < vocabulary_size(loaded)),
        special_tokens=special_tokens(loaded),
        files=describe_files(directory),
        created=int(time.time()),
        versions=package_versions(),
        verification=dict(verification),
        prefix=prefix,
        sampling=sampling_defaults(loaded.generation_config),
    )
    save_manifest(directory, manifest)


def save_manifest(directory: Path, manifest: Manifest) -> None:
    """As JSON that a person can read."""
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (directory / MANIFEST).write_bytes(encoded + b"\n")


def model_info(recipe: Recipe, loaded: LoadedModel) -> ModelInfo:
    """Where the weights come from."""
    return ModelInfo(
        id=recipe.model.id,
        source=loaded.source,
        revision=loaded.revision,
        architecture=type(loaded.model).__name__,
        licence=recipe.model.licence,
    )


def _replaceable(out: Path) -> bool:
    return out.is_dir() and (_is_artefact(out) or not any(out.iterdir()))


def _is_artefact(directory: Path) -> bool:
    """By its manifest: web apps and browser extensions have a manifest.json too."""
    try:
        msgspec.json.decode((directory / MANIFEST).read_bytes(), type=Manifest)
    except (OSError, msgspec.DecodeError):
        return False
    return True


def _write_licence(directory: Path, recipe: Recipe, loaded: LoadedModel) -> None:
    """The source's own licence files, else the text or where it is; and the notice it asks for."""
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
    """A notice or a policy is no licence."""
    return path.name.upper().startswith(("LICENSE", "LICENCE"))


def _shipped_text(name: str) -> str:
    """A file of LICENCE_TEXTS; empty where it has none of that name."""
    path = LICENCE_TEXTS / name
    shipped = path.parent == LICENCE_TEXTS and path.is_file()
    return path.read_text(encoding="utf-8") if shipped else ""


def _where_its_text_is(licence: str) -> str:
    """A licence that SPDX does not list has a name that begins as its specification says."""
    if licence.startswith("LicenseRef-"):
        return "Its text is where the weights are from."
    return f"Its text: https://spdx.org/licenses/{licence}.html"


def special_tokens(loaded: LoadedModel) -> dict[str, str]:
    """bos_token, eos_token and so on, as the chat template may name them."""
    tokens = loaded.tokenizer.special_tokens_map
    return {name: token for name, token in tokens.items() if isinstance(token, str)}


def describe_files(directory: Path) -> dict[str, FileInfo]:
    """Every file of an artefact but its manifest."""
    return {
        path.name: FileInfo(size=path.stat().st_size, sha256=sha256_of(path))
        for path in sorted(directory.iterdir())
        if path.name != MANIFEST
    }


def package_versions() -> dict[str, str]:
    """What makes an artefact, as it is installed."""
    versions = {"kindling": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # transformers 5 has no optimum beside it
    return versions
