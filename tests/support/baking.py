"""Copies of an artefact without a baked prefix, or with another, as the export leaves them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from handlers.artifact.manifest import MANIFEST, PREFIX, Artifact, FileInfo, Manifest
from model_export.verify.prefix import bake


def unbaked_copy(artifact: Path, directory: Path) -> Path:
    """Links the files of `artifact` into a new `directory`, without its prefix."""
    directory.mkdir()
    manifest = Artifact.open(artifact).manifest
    files = {name: info for name, info in manifest.files.items() if name != PREFIX}
    for name in files:
        (directory / name).symlink_to((artifact / name).resolve())
    write_manifest(directory, msgspec.structs.replace(manifest, files=files, prefix=None))
    return directory


def bake_copy(artifact: Path, directory: Path, system_prompt: str) -> Path:
    """Copies an artefact and bakes this prompt into the copy."""
    unbaked = Artifact.open(unbaked_copy(artifact, directory))
    info = bake(unbaked, system_prompt, threads=1)
    content = unbaked.prefix.read_bytes()
    file = FileInfo(size=len(content), sha256=hashlib.sha256(content).hexdigest())
    files = unbaked.manifest.files | {PREFIX: file}
    write_manifest(directory, msgspec.structs.replace(unbaked.manifest, files=files, prefix=info))
    return directory


def write_manifest(directory: Path, manifest: Manifest) -> None:
    (directory / MANIFEST).write_bytes(msgspec.json.encode(manifest))
