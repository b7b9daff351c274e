"""Computes what a step of a draft model costs, by the bytes that it reads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from handlers.artifact.manifest import DRAFT_GRAPH, GRAPH
from model_export.verify.speculation import step_cost

if TYPE_CHECKING:
    import onnx_ir as ir

_BY_ROWS = ("Gather", "Attention")
"""In the names of nodes that read some rows of an initialiser alone: embeddings, rotary tables."""


def step_cost_in(directory: Path) -> float | None:
    """Returns the cost of a step of an artefact's draft model, None where it has none."""
    if not (directory / DRAFT_GRAPH).is_file():
        return None
    return step_cost(bytes_read(directory / DRAFT_GRAPH), bytes_read(directory / GRAPH))


def bytes_read(graph: Path) -> int:
    """Counts the bytes of weights that a call of a few tokens reads whole."""
    import onnx_ir as ir  # after torch, which is what a person has to install first

    weights = ir.load(graph).graph.initializers.values()
    return sum(each.const_value.nbytes for each in weights if each.const_value and _is_read(each))


def _is_read(weight: ir.Value) -> bool:
    readers = [node.op_type for node, _ in weight.uses()]
    return any(not any(part in name for part in _BY_ROWS) for name in readers)
