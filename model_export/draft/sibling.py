"""Takes another model's artefact into the model's own, as its draft model.

Its graph and its weights get names of their own, and its licence stands beside the model's. Its
tokenizer and its templates are left out, since they are the model's.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import onnx_ir as ir

from handlers.artifact.manifest import (
    CHAT_TEMPLATE,
    DRAFT_GRAPH,
    DRAFT_WEIGHTS,
    GRAPH,
    TOKENIZER,
    TOOL_TEMPLATE,
    WEIGHTS,
    Artifact,
    DraftInfo,
)
from model_export.save.graph_file import large_values, write_graph

_LEFT_OUT = (GRAPH, WEIGHTS, TOKENIZER, CHAT_TEMPLATE, TOOL_TEMPLATE)
LICENCES = "draft."
"""What the names of the draft model's licence files begin with: draft.LICENSE."""


def add_sibling(sibling: Path, directory: Path) -> DraftInfo:
    """Adds the artefact at `sibling` to that at `directory`. Nothing has measured the pair yet."""
    manifest = Artifact.open(sibling).manifest
    _write_graph(sibling, directory)
    _link(sibling / WEIGHTS, directory / DRAFT_WEIGHTS)
    for name in manifest.files:
        if name not in _LEFT_OUT:
            shutil.copyfile(sibling / name, directory / f"{LICENCES}{name}")
    return DraftInfo(
        model=manifest.model.id,
        layers=0,
        precision=manifest.precision,
        acceptance=0.0,
        measured={},
        origin=manifest.model,
    )


def _write_graph(sibling: Path, directory: Path) -> None:
    graph = ir.load(sibling / GRAPH)
    values = large_values(graph)
    tensors = [_renamed(value.const_value, directory) for value in values]
    write_graph(graph, values, tensors, directory / DRAFT_GRAPH)


def _renamed(tensor: ir.TensorProtocol | None, directory: Path) -> ir.TensorProtocol:
    """Returns the same part of the file of weights under its new name."""
    if not isinstance(tensor, ir.ExternalTensor):
        raise TypeError(f"{tensor} does not lie in {WEIGHTS}.")
    return ir.ExternalTensor(
        DRAFT_WEIGHTS,
        tensor.offset,
        tensor.length,
        tensor.dtype,
        shape=tensor.shape,
        name=str(tensor.name),
        base_dir=directory,
    )


def _link(source: Path, target: Path) -> None:
    """Gives a file a second name, or copies it where the file system has no such thing."""
    target.unlink(missing_ok=True)  # of an export that was interrupted
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
