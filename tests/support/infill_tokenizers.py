"""Tokenizers with marks for filling in, in place of the last tokens of a vocabulary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import msgspec
from tokenizers import Tokenizer

from handlers.artifact.manifest import TOKENIZER, Artifact, FileInfo
from tests.support.baking import unbaked_copy, write_manifest

QWEN = (
    "<|fim_prefix|>",
    "<|fim_suffix|>",
    "<|fim_middle|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)


def with_marks(backend: Tokenizer, marks: Sequence[str], *, special: bool = False) -> Tokenizer:
    """Returns a byte-level BPE whose last tokens are these marks, so its ids stay as many."""
    parts = json.loads(backend.to_str())
    vocabulary = parts["model"]["vocab"]
    last = sorted(vocabulary, key=vocabulary.__getitem__)[-len(marks) :]
    kept = {name: token_id for name, token_id in vocabulary.items() if name not in last}
    ids = [vocabulary[name] for name in last]
    parts["model"]["vocab"] = kept | dict(zip(marks, ids, strict=True))
    parts["model"]["merges"] = [
        pair for pair in parts["model"]["merges"] if not {*pair, "".join(pair)} & {*last}
    ]
    parts["added_tokens"] += [
        {
            "id": token_id,
            "content": mark,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": special,
        }
        for mark, token_id in zip(marks, ids, strict=True)
    ]
    return Tokenizer.from_str(json.dumps(parts))


def filling_copy(artifact: Path, directory: Path, marks: Sequence[str] = QWEN) -> Path:
    """Links the files of an artefact into a new directory, with these marks in its tokenizer."""
    unbaked_copy(artifact, directory)
    manifest = Artifact.open(directory).manifest
    path = directory / TOKENIZER
    changed = with_marks(Tokenizer.from_file(str(path)), marks).to_str().encode()
    path.unlink()
    path.write_bytes(changed)
    info = FileInfo(size=len(changed), sha256=hashlib.sha256(changed).hexdigest())
    files = manifest.files | {TOKENIZER: info}
    write_manifest(directory, msgspec.structs.replace(manifest, files=files))
    return directory
