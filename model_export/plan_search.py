"""Writes and measures plans for weights = "auto", of which plan_choice.py chooses one.

They are measured on the half of the evaluation text that the gates do not judge by. What a plan
that holds was measured in stays on disk until a smaller one holds, and becomes the artefact.
"""

from __future__ import annotations

import shutil
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx_ir as ir

from handlers.artifact.manifest import GRAPH, WEIGHTS, PlanInfo
from model_export.plan_choice import MeasuredPlan, choose, with_margin
from model_export.quantize import matrices_of, output_projection, quantize
from model_export.quantize.plan import Frontier, Upgrade, frontier_of
from model_export.recipe import BITS, DecoderTolerance, Precision
from model_export.reporting import Report
from model_export.save import save, size_of_weights
from model_export.save.layout import PAGE
from model_export.sizing.limits import MB, budget_too_small
from model_export.verify.exchange import DecoderReference, DriftRequest
from model_export.verify.launch import verify

BAR = 30
"""Characters of the longest bar in the table of `--plan`."""
MEASURED, HELD = "measured", "held"
"""The directories of the plan that is being measured, and of the smallest that held."""
UNCERTAIN = 1.1
"""Times what a plan is predicted to lose, within which it may lose less than another."""
SHOWN = (0, 0.1, 0.25, 0.5, 0.75, 1)
"""Shares of the bytes that all upgrades take, in the table of `--plan`."""


def frontier_of_graph(graph: ir.Model, precision: Precision) -> Frontier:
    """Orders the upgrades of a graph that is fused and not quantised."""
    return frontier_of(matrices_of(graph, precision), precision, output_projection(graph))


def filled(
    max_mb: float, graph: ir.Model, precision: Precision, frontier: Frontier
) -> tuple[Frontier, int]:
    """Returns a frontier, and how many of its upgrades fill a file of weights of `max_mb`.

    Every matrix has at least the same bits, as many as fit, unless bits by matrix alone are
    predicted to lose clearly less. Raises ExportError.
    """
    sizes = _Sizes(graph, precision)
    if sizes.of(frontier, 0) > max_mb * MB:
        raise budget_too_small(precision, sizes.of(frontier, 0))
    uniform = [
        _filled(max_mb, sizes, above)
        for above in map(frontier.above, precision.choices)
        if sizes.of(above, 0) <= max_mb * MB
    ]
    free, best = _filled(max_mb, sizes, frontier), min(uniform, key=_left)
    return free if _left(free) * UNCERTAIN < _left(best) else best


@dataclass(frozen=True, slots=True)
class _Sizes:
    """Computes the bytes of a graph's file of weights."""

    graph: ir.Model
    precision: Precision

    def of(self, frontier: Frontier, upgrades: int) -> int:
        """Returns those of the plan with so many upgrades."""
        plan = frontier.plan(upgrades)
        return size_of_weights(quantize(self.graph.clone(), self.precision, plan))


def _left(filled: tuple[Frontier, int]) -> float:
    """Returns what a plan is predicted to lose."""
    frontier, upgrades = filled
    return frontier.loss(upgrades)


def _filled(max_mb: float, sizes: _Sizes, frontier: Frontier) -> tuple[Frontier, int]:
    """Returns the first upgrades that fit, and of those after them what there is still room for."""
    counts = range(len(frontier.upgrades) + 1)
    fitting = bisect_right(counts, max_mb * MB, key=lambda count: sizes.of(frontier, count))
    taken = list(frontier.upgrades[: fitting - 1])
    room = max_mb * MB - sizes.of(frontier, len(taken))

    def fits(each: Upgrade) -> bool:
        # Its three tensors begin pages of their own, so it may take that much less.
        if each.extra > room + 3 * PAGE:
            return False
        return sizes.of(frontier.with_first([*taken, each]), len(taken) + 1) <= max_mb * MB

    while each := next(filter(fits, frontier.next_after(taken)), None):
        taken.append(each)
        room = max_mb * MB - sizes.of(frontier.with_first(taken), len(taken))
    return frontier.with_first(taken), len(taken)


class PlanSearch:
    """Writes and measures plans of one graph, in a directory of its own."""

    def __init__(
        self,
        graph: ir.Model,
        precision: Precision,
        reference: DecoderReference,
        directory: Path,
        threads: int,
        report: Report,
    ) -> None:
        """Orders the upgrades of `graph`, which is fused and not quantised, and stays so."""
        self._graph, self._precision, self._reference = graph, precision, reference
        self._directory, self._threads, self._report = directory, threads, report
        self._kept: int | None = None  # the upgrades of the plan that lies in HELD
        self.measured: list[MeasuredPlan] = []
        self.frontier = frontier_of_graph(graph, precision)

    def chosen(self, tolerance: DecoderTolerance) -> int:
        """Counts the upgrades of the plan that is chosen. Raises ExportError."""
        max_mb = self._precision.max_mb
        if max_mb is not None:
            self.frontier, chosen = filled(max_mb, self._graph, self._precision, self.frontier)
            return chosen
        if not self.frontier.upgrades:
            return 0
        limits = with_margin(tolerance)

        def measure(upgrades: int) -> MeasuredPlan:
            plan = self.measure(upgrades)
            if plan.keeps(limits):
                self._keep(upgrades)
            return plan

        found = choose(self.frontier, measure, tolerance)
        uniform = self._smaller_uniform(found, limits)
        if uniform is None:
            return found.upgrades
        searched, self.frontier = self.frontier, uniform
        if measure(0).keeps(limits):
            return 0
        self.frontier = searched
        return found.upgrades

    def _smaller_uniform(self, found: MeasuredPlan, limits: DecoderTolerance) -> Frontier | None:
        """Returns the frontier above the smallest plan of equal bits that may hold, if one may.

        What such a plan loses follows from what was measured of the smallest, whatever is wrong
        about the order of the matrices. None where no plan of them is smaller than `found`.
        """
        sizes, smallest = _Sizes(self._graph, self._precision), self.measured[0]
        for above in map(self.frontier.above, self._precision.choices[1:]):
            share = above.loss(0) / self.frontier.loss(0)
            may_hold = share * smallest.strain(limits) <= UNCERTAIN
            if may_hold and sizes.of(above, 0) < found.bytes:
                return above
        return None

    def move_chosen(self, upgrades: int, directory: Path) -> bool:
        """Moves the plan that was measured and chosen to `directory`. False where none was."""
        if self._kept != upgrades:
            return False
        shutil.rmtree(directory, ignore_errors=True)  # of an export that was interrupted
        (self._directory / HELD).rename(directory)
        self._kept = None
        return True

    def measure(self, upgrades: int) -> MeasuredPlan:
        """Measures the plan with so many upgrades, and reports it."""
        directory = self._directory / MEASURED
        shutil.rmtree(directory, ignore_errors=True)
        save(self.quantised(upgrades), directory, threads=self._threads)
        outcome = verify(self._request(directory), self._directory / "exchange", self._report)
        figures = outcome.figures
        found = MeasuredPlan(
            upgrades=upgrades,
            matrices=self.describe(upgrades),
            bytes=(directory / WEIGHTS).stat().st_size,
            kl=figures["kl"],
            top1_agreement=figures["top1_agreement"],
            perplexity_ratio=figures["perplexity_ratio"],
        )
        self.measured.append(found)
        self._report(f"plan: {found}")
        return found

    def quantised(self, upgrades: int) -> ir.Model:
        """Returns the graph of a plan."""
        return quantize(self._graph.clone(), self._precision, self.frontier.plan(upgrades))

    def describe(self, upgrades: int) -> str:
        """Counts the matrices of a plan by their weights: "199 int4, 12 int8"."""
        counts = Counter(self.frontier.plan(upgrades).values())
        return ", ".join(f"{counts[weights]} {weights}" for weights in BITS if counts[weights])

    def info(self, upgrades: int) -> PlanInfo:
        """Returns what a manifest says of a plan."""
        measured = tuple(map(asdict, self.measured))
        return PlanInfo(weights=dict(self.frontier.plan(upgrades)), measured=measured)

    def _keep(self, upgrades: int) -> None:
        """Keeps the plan that was measured last, in the place of a larger one."""
        held = self._directory / HELD
        shutil.rmtree(held, ignore_errors=True)
        (self._directory / MEASURED).rename(held)
        self._kept = upgrades

    def _request(self, directory: Path) -> DriftRequest:
        reference = self._reference
        return DriftRequest(
            graph=directory / GRAPH,
            windows=reference.choosing,
            logits=reference.logits,
            skipped=sum(map(len, reference.windows)),
            vocabulary=reference.vocabulary,
            threads=self._threads,
        )


def table(plans: Sequence[MeasuredPlan]) -> str:
    """Returns what `--plan` prints: a line for each plan, the smallest first, with a bar of KL."""
    rows = [
        (
            plan.matrices,
            f"{plan.bytes / MB:.1f}",
            f"{plan.top1_agreement:.3f}",
            f"{plan.perplexity_ratio:.3f}",
            f"{plans[0].bytes / plan.bytes:.2f}",
            f"{plan.kl:.4f}",
        )
        for plan in plans
    ]
    head = ("matrices", "MB", "top-1", "ratio", "decode speed", "KL")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for row in (head, *rows)
    ]
    most = max(plan.kl for plan in plans) or 1.0
    bars = ("", *("\N{FULL BLOCK}" * round(BAR * plan.kl / most) for plan in plans))
    return "\n".join(f"{line}  {bar}".rstrip() for line, bar in zip(lines, bars, strict=True))
