"""manifest.json of an encoder; the other small files are a decoder's too (pack.py)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from handlers.artifact.manifest import SCHEMA, Manifest
from model_export.pack import (
    describe_files,
    model_info,
    package_versions,
    save_manifest,
    special_tokens,
    vocabulary_size,
)

if TYPE_CHECKING:
    from model_export.encoder.source import EncoderSource
    from model_export.recipe import EncoderRecipe


def write_manifest(
    directory: Path,
    recipe: EncoderRecipe,
    source: EncoderSource,
    precision: str,
    verification: Mapping[str, Any],
) -> None:
    """Over all other files in `directory`; the last file to be written."""
    loaded = source.loaded
    manifest = Manifest(
        schema=SCHEMA,
        task=recipe.export.task,
        model=model_info(recipe, loaded),
        precision=precision,
        vocab_size=vocabulary_size(loaded),
        context_length=source.info.max_tokens,
        eos_token_ids=(),
        special_tokens=special_tokens(loaded),
        files=describe_files(directory),
        created=int(time.time()),
        versions=package_versions(),
        verification=dict(verification),
        encoder=source.info,
    )
    save_manifest(directory, manifest)
