"""Makes a draft model of the model's own first layers, its last norm and its head: draft.onnx.

The model is cut after these layers, and traced, made fast and quantised as the whole one is. So
each of its weights is one of the whole model's, and lies in its file already: draft.onnx points
there, and no byte is written twice. Its first layers' keys and values are the model's own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
from transformers import PreTrainedModel

from handlers.artifact.manifest import DRAFT_GRAPH, GRAPH
from model_export.decoder.cut import cut_to_first
from model_export.draft.support import first_layers
from model_export.fuse.graphs import attribute
from model_export.quantize import quantize
from model_export.quantize.plan import Plan
from model_export.recipe import BITS, COMPACT, Precision
from model_export.save.shared import save_shared

_OPERATORS = ("AffineMatMul", "AffineGather")
_PLAIN = tuple(each for each in BITS if each not in COMPACT)


def write_own_layers(
    model: PreTrainedModel,
    layers: int,
    convert: Callable[[], ir.Model],
    precision: Precision,
    directory: Path,
) -> None:
    """Writes draft.onnx of the first `layers` of `model`, whose artefact lies in `directory`.

    `convert` traces the model as it is when it is called, and makes its graph fast. Raises
    ExportError where the first layers cannot be had alone.
    """
    found = first_layers(model, layers)
    with cut_to_first(model, found, layers):
        graph = convert()
    # Layers that mixed_layers gives more bits are in the plan, and others would be chosen here.
    plan = plan_in(ir.load(directory / GRAPH))
    quantize(graph, replace(precision, mixed_layers=False), plan)
    save_shared(graph, directory / DRAFT_GRAPH)


def plan_in(graph: ir.Model) -> Plan:
    """Returns the weights of each matrix of a graph that is quantised, by its name before."""
    plan: dict[str, str] = {}
    for node in graph.graph:
        if node.op_type in _OPERATORS:
            names = [str(value.name) for value in node.inputs[1:4] if value is not None]
            kinds = COMPACT if any(name.endswith(".row_scales") for name in names) else _PLAIN
            weights = next(each for each in kinds if BITS[each] == attribute(node, "bits", 0))
            plan[names[0].removesuffix(".values")] = weights
    return plan
