"""Compares what an export takes with what this machine has, before anything large is read.

A prediction may be wrong by a fifth, so an export is refused only where its memory is more than all
that the machine has. Where it is more than what is free now, a line says so.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass
from pathlib import Path

from handlers.memory import available_memory, total_memory
from model_export.recipe import Precision
from model_export.reporting import ExportError, Report
from model_export.scratch import scratch_path
from model_export.sizing.cost import Cost
from model_export.sizing.footprint import Outline, weights_of

GB = 1e9
MB = 1e6
PREDICTED = 0.97
"""Of a predicted file of weights, what it has at least (tests/export/test_dry_run.py)."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes that an export may take."""

    memory: int
    """All that the machine has, or the container where that may take less."""
    available: int
    """What is free of it now."""
    disk: int
    """What is free where the artefact goes, with what an interrupted export holds there."""


def limits_of(out: Path) -> Limits:
    """Reads the limits of this machine, for an export to `out`."""
    scratch = scratch_path(out)
    directory = out.absolute()
    while not directory.is_dir():
        directory = directory.parent
    held = sum(path.stat().st_blocks * 512 for path in scratch.rglob("*") if path.is_file())
    return Limits(total_memory(), available_memory(), shutil.disk_usage(directory).free + held)


def check_limits(cost: Cost, limits: Limits, report: Report) -> None:
    """Raises ExportError where the machine cannot hold the export; reports where it is tight."""
    if cost.memory > limits.memory:
        raise ExportError(
            f"The export takes about {gigabytes(cost.memory)} of memory at its peak, and this "
            f"machine has {gigabytes(limits.memory)} in all: use one with "
            f"{math.ceil(cost.memory * 1.1 / GB)} GB, or raise the container's limit."
        )
    if cost.disk > limits.disk:
        raise ExportError(
            f"The export takes about {gigabytes(cost.disk)} of disk where the artefact goes, and "
            f"{gigabytes(limits.disk)} is free there: make room, or name another --out."
        )
    if cost.memory > limits.available:
        report(
            f"memory is tight: the export takes about {gigabytes(cost.memory)} at its peak, and "
            f"{gigabytes(limits.available)} is free now. If it is killed, stop other programs and "
            f"run it again: it goes on from where it was"
        )


def check_budget(precision: Precision, outline: Outline) -> None:
    """Raises ExportError where a file of weights cannot be as small as [precision] max_mb."""
    if precision.max_mb is None:
        return
    least = weights_of(outline, precision.all_in(precision.choices[0])).total
    if least * PREDICTED > precision.max_mb * MB:
        raise budget_too_small(precision, least)


def budget_too_small(precision: Precision, least: int) -> ExportError:
    """Returns the error for a max_mb below the bytes of all matrices in the smallest weights."""
    first = precision.choices[0]
    smaller = "" if precision.lm_head in ("", first) else ", or leave lm_head out"
    return ExportError(
        f"[precision] max_mb is {precision.max_mb:g}, and with all matrices in {first} the weights "
        f"take {math.ceil(10 * least / MB) / 10:.1f} MB: raise it to that at least{smaller}."
    )


def gigabytes(count: int) -> str:
    """Returns "3.1 GB"."""
    return f"{count / GB:,.1f} GB"
