"""One model's two artefacts: the fp32 one, to be verified against, and the quantised one.

What differs between tasks is handed in. Called by pipeline.py and encoder/pipeline.py.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from model_export.recipe import Precision
from model_export.reporting import Report

if TYPE_CHECKING:
    import onnx_ir as ir

EXACT = "fp32"

Finish = Callable[[Path, str], None]
"""Writes all but the graph into an artefact of a described precision."""


def build(
    convert: Callable[[], ir.Model],
    fuse: Callable[[ir.Model], ir.Model],
    finish: Finish,
    precision: Precision,
    scratch: Path,
    report: Report,
) -> tuple[Path, Path]:
    """The fp32 and the quantised artefact in `scratch`, complete but for their verification."""
    from model_export.quantize import quantize

    report("convert to ONNX")
    graph = convert()
    report("fuse")
    graph = fuse(graph)
    exact = _write(graph, scratch / "exact", finish, EXACT)
    described = precision.describe()
    report(f"quantize to {described}")
    graph = quantize(graph, precision)
    return exact, _write(graph, scratch / "artefact", finish, described)


def use_threads(count: int) -> None:
    """torch counts the host's CPUs, not those that this process may use."""
    import torch

    torch.set_num_threads(count)


def _write(graph: ir.Model, directory: Path, finish: Finish, precision: str) -> Path:
    from model_export.save import save

    save(graph, directory)
    finish(directory, precision)
    return directory
