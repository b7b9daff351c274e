"""Complete artefacts of the tiny decoders."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import onnx_ir as ir

from handlers.artifact.manifest import (
    CHAT_TEMPLATE,
    MANIFEST,
    SCHEMA,
    TOKENIZER,
    FileInfo,
    Manifest,
    ModelInfo,
)
from model_export.quantize import quantize
from model_export.recipe import Precision
from model_export.save import save
from tests.support.tiny_models import tiny_model
from tests.support.tiny_tokenizers import (
    CHATML,
    END_OF_TEXT,
    IM_END,
    SPECIAL_TOKENS,
    VOCABULARY,
    tiny_tokenizer,
)
from tests.support.traced import fused


def export_tiny(family: str, directory: Path, weights: str = "fp32") -> Path:
    """Write a complete artefact of `family` into `directory`, and return it."""
    name, precision = type(tiny_model(family)).__name__, Precision(weights)
    graph = quantize(fused(family), precision)
    ends = (IM_END, END_OF_TEXT)
    return write_artifact(name, graph, directory, ends, precision.describe())


def write_artifact(
    architecture: str,
    graph: ir.Model,
    directory: Path,
    eos_token_ids: tuple[int, ...],
    precision: str = "fp32",
) -> Path:
    """`graph` as an artefact with the tiny tokenizer, in `directory`, which is returned."""
    context_length = int(graph.metadata_props["context_length"])
    save(graph, directory)
    tiny_tokenizer().save(str(directory / TOKENIZER))
    (directory / CHAT_TEMPLATE).write_text(CHATML, encoding="utf-8")
    manifest = _manifest(architecture, directory, context_length, eos_token_ids, precision)
    (directory / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return directory


def _manifest(
    architecture: str,
    directory: Path,
    context_length: int,
    eos_token_ids: tuple[int, ...],
    precision: str,
) -> Manifest:
    files = sorted(path for path in directory.iterdir() if path.name != MANIFEST)
    return Manifest(
        schema=SCHEMA,
        task="text-generation",
        model=ModelInfo(
            id=f"tiny-{architecture}",
            source="tests",
            revision="0",
            architecture=architecture,
            licence="Apache-2.0",
        ),
        precision=precision,
        vocab_size=VOCABULARY,
        context_length=context_length,
        eos_token_ids=eos_token_ids,
        special_tokens={"bos_token": SPECIAL_TOKENS[0], "eos_token": SPECIAL_TOKENS[IM_END]},
        files={path.name: _file_info(path) for path in files},
        created=0,
        versions={},
        verification={},
    )


def _file_info(path: Path) -> FileInfo:
    content = path.read_bytes()
    return FileInfo(size=len(content), sha256=hashlib.sha256(content).hexdigest())
