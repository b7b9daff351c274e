"""Writes a graph and its weights: model.onnx, and model.onnx.data beside it.

The weights lie raw and page-aligned, so that ONNX Runtime can map them. Where each lies is known
before the first is computed (layout.py); they are computed and written a part at a time, on several
threads (writer.py); and a save that was killed goes on where it was (journal.py).

Memory: a few MB for each thread. A weight that cannot be read by rows, a transposed one or one that
is computed, is held whole by the thread that writes it.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import onnx_ir as ir

from handlers.artifact.manifest import GRAPH, WEIGHTS
from model_export.reporting import Progress, Report
from model_export.save.graph_file import large_values, write_graph
from model_export.save.journal import Journal
from model_export.save.layout import Layout, Place
from model_export.save.writer import write_weights


def save(
    model: ir.Model,
    directory: Path,
    *,
    threads: int = 1,
    report: Report = lambda _: None,
    journal: Path | None = None,
) -> None:
    """Writes `model` into `directory`. The model itself keeps its tensors.

    The bytes are the same with any number of threads. `report` gets a line every few seconds. Of
    what a call that was killed left in `directory`, the bytes that are whole are kept: the
    caller answers for the weights being the same. A file at `journal` stays when all is
    written, so that a later call finds all of it whole; otherwise it lies in `directory` and goes.
    """
    directory.mkdir(parents=True, exist_ok=True)
    values = large_values(model)
    layout, places = _laid_out(values)
    notes = Journal(journal or directory / f"{WEIGHTS}.journal", layout.digest())
    progress = Progress(report, layout.end, partial(_of, layout.end))
    with notes:
        write_weights(directory / WEIGHTS, layout, notes, threads, progress)
    tensors = [_external(*each, directory) for each in zip(values, places, strict=True)]
    write_graph(model, values, tensors, directory / GRAPH)
    if journal is None:
        notes.remove()


def size_of_weights(model: ir.Model) -> int:
    """Returns the bytes of the file of weights that `save` would write, and computes none."""
    layout, _ = _laid_out(large_values(model))
    return layout.end


def _laid_out(values: list[ir.Value]) -> tuple[Layout, list[Place]]:
    layout = Layout()
    return layout, [layout.add(value.const_value) for value in values if value.const_value]


def _of(total: int, done: int) -> str:
    """Says how many bytes are written: "1.2 of 4.6 GB"."""
    if total >= 1e9:
        return f"{done / 1e9:.1f} of {total / 1e9:.1f} GB"
    return f"{done / 1e6:.0f} of {total / 1e6:.0f} MB"


def _external(value: ir.Value, place: Place, directory: Path) -> ir.ExternalTensor:
    tensor = value.const_value
    return ir.ExternalTensor(
        WEIGHTS,
        place.offset,
        place.size,
        tensor.dtype,  # type: ignore[union-attr]
        shape=ir.Shape(tensor.shape.numpy()),  # type: ignore[union-attr]
        name=str(value.name),
        base_dir=directory,
    )
