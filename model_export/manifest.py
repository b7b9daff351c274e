"""Describes an artefact in its manifest.json: handlers/artifact/manifest.py says what it means."""

from __future__ import annotations

import importlib.metadata
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from handlers import __version__
from handlers.artifact.dialect import Dialect
from handlers.artifact.manifest import (
    MANIFEST,
    SCHEMA,
    DraftInfo,
    EncoderInfo,
    FileInfo,
    Manifest,
    ModelInfo,
    SamplingDefaults,
)
from model_export.fetch.load import LoadedModel
from model_export.fetch.locate import sha256_of
from model_export.recipe import DecoderRecipe, EncoderRecipe

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


@dataclass(frozen=True, slots=True)
class ManifestFields:
    """The fields of a manifest that decoders and encoders fill in different ways."""

    context_length: int
    eos_token_ids: tuple[int, ...] = ()
    encoder: EncoderInfo | None = None
    sampling: SamplingDefaults = field(default_factory=SamplingDefaults)
    dialect: Dialect = field(default_factory=Dialect)
    draft: DraftInfo | None = None


def make_manifest(
    recipe: DecoderRecipe | EncoderRecipe,
    loaded: LoadedModel,
    fields: ManifestFields,
    precision: str,
    files: dict[str, FileInfo],
) -> Manifest:
    """Returns the manifest of an artefact that has not been verified yet."""
    return Manifest(
        schema=SCHEMA,
        task=recipe.export.task,
        model=ModelInfo(
            id=recipe.model.id,
            source=loaded.source,
            revision=loaded.revision,
            architecture=type(loaded.model).__name__,
            licence=recipe.model.licence,
        ),
        precision=precision,
        vocab_size=loaded.vocabulary_size,
        context_length=fields.context_length,
        eos_token_ids=fields.eos_token_ids,
        special_tokens=special_tokens(loaded),
        files=files,
        created=int(time.time()),
        versions=package_versions(),
        verification={},
        encoder=fields.encoder,
        sampling=fields.sampling,
        draft=fields.draft,
        dialect=msgspec.Raw(msgspec.json.encode(fields.dialect)),
    )


def save_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes manifest.json, the last file of an artefact, as JSON that a person can read."""
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=2)
    (directory / MANIFEST).write_bytes(encoded + b"\n")


def describe_files(
    directory: Path, known: Mapping[str, FileInfo] | None = None
) -> dict[str, FileInfo]:
    """Describes every file of an artefact but its manifest. Those in `known` are not read again."""
    known = known or {}
    return {
        path.name: known.get(path.name) or FileInfo(path.stat().st_size, sha256_of(path))
        for path in _files_in(directory)
    }


def measure_files(directory: Path) -> dict[str, FileInfo]:
    """Describes the files by their sizes alone, for an artefact that only the gates read."""
    return {path.name: FileInfo(path.stat().st_size, sha256="") for path in _files_in(directory)}


def package_versions() -> dict[str, str]:
    """Returns the installed versions of what makes an artefact."""
    versions = {"kindling": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # transformers 5 has no optimum beside it
    return versions


def _files_in(directory: Path) -> list[Path]:
    return [path for path in sorted(directory.iterdir()) if path.name != MANIFEST]


def special_tokens(loaded: LoadedModel) -> dict[str, str]:
    """Returns bos_token, eos_token and so on, as the chat template may name them."""
    tokens = loaded.tokenizer.special_tokens_map
    return {name: token for name, token in tokens.items() if isinstance(token, str)}
