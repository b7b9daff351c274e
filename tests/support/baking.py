"""A copy of an artefact with a system prompt baked in, as the export leaves it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from handlers.engine.artifact import MANIFEST, PREFIX, Artifact, FileInfo, Manifest
from model_export.prefix import bake


def bake_copy(artifact: Path, directory: Path, system_prompt: str) -> Path:
    """Links the files of `artifact` into a new `directory` and bakes the prompt there."""
    directory.mkdir()
    for name in Artifact.open(artifact).manifest.files:
        (directory / name).symlink_to((artifact / name).resolve())
    manifest = Artifact.open(artifact).manifest
    write_manifest(directory, manifest)
    info = bake(Artifact.open(directory), system_prompt, threads=1)
    content = (directory / PREFIX).read_bytes()
    file = FileInfo(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    files = manifest.files | {PREFIX: file}
    write_manifest(directory, msgspec.structs.replace(manifest, files=files, prefix=info))
    return directory


def write_manifest(directory: Path, manifest: Manifest) -> None:
    (directory / MANIFEST).write_bytes(msgspec.json.encode(manifest))
