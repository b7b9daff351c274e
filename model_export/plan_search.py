"""Chooses the weights of each matrix for weights = "auto": the smallest artefact that holds.

Plans are nested, from all int4 on (quantize/plan.py), and larger ones lose less. All int4 is
measured first; where it is over a limit, bisection finds the smallest plan that is not. They are
measured on the half of the evaluation text that the gates do not judge by, and have to keep the
limits by a margin, since the other half differs.
"""

from __future__ import annotations

import shutil
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx_ir as ir

from handlers.artifact.manifest import GRAPH, WEIGHTS, PlanInfo
from model_export.quantize import matrices_of, quantize, untied_head
from model_export.quantize.plan import Frontier, frontier_of
from model_export.recipe import BITS, DecoderTolerance, Precision
from model_export.reporting import ExportError, Report
from model_export.save import save, size_of_weights
from model_export.sizing.limits import MB, budget_too_small
from model_export.verify.drift import first_over_limit
from model_export.verify.exchange import DecoderReference, DriftRequest
from model_export.verify.launch import verify

MARGIN = 0.9
"""Of a limit, what may be used up on the text that a plan is chosen by."""
STEPS = 31
"""Plans beside all int4, at even distances in bytes: bisection measures five of them at most."""
BAR = 30
"""Characters of the longest bar in the table of `--plan`."""
SHOWN = (0, 0.1, 0.25, 0.5, 0.75, 1)
"""Shares of the bytes that all upgrades take, in the table of `--plan`."""


@dataclass(frozen=True, slots=True)
class MeasuredPlan:
    """A plan, its bytes, and its drift on the text for choosing by."""

    upgrades: int
    """How many of the frontier's it has."""
    matrices: str
    """How many of them have which weights, "199 int4, 12 int8"."""
    bytes: int
    """Of the file of weights."""
    kl: float
    top1_agreement: float
    perplexity_ratio: float

    def __str__(self) -> str:
        return (
            f"{self.matrices}, {self.bytes / MB:.1f} MB: "
            f"KL {self.kl:.3f}, top-1 {self.top1_agreement:.3f}, ratio {self.perplexity_ratio:.3f}"
        )

    def keeps(self, limits: DecoderTolerance) -> bool:
        """Tells whether no figure is over its limit."""
        return first_over_limit(self, limits) is None


Measure = Callable[[int], MeasuredPlan]
"""Measures the plan with so many upgrades."""


def choose(frontier: Frontier, measure: Measure, tolerance: DecoderTolerance) -> MeasuredPlan:
    """Returns the smallest plan that keeps the limits. Raises ExportError where none does."""
    limits = with_margin(tolerance)
    first = measure(0)
    if first.keeps(limits):
        return first
    found: dict[int, MeasuredPlan] = {0: first}

    def holds(count: int) -> bool:
        found[count] = measure(count)
        return found[count].keeps(limits)

    shares = (step / STEPS for step in range(1, STEPS + 1))
    counts = [count for count in frontier.counts(shares) if count]
    place = bisect_left(counts, True, key=holds)
    if place == len(counts):
        raise _nothing_holds(found[counts[-1]] if counts else first, tolerance)
    return found[counts[place]]


def frontier_of_graph(graph: ir.Model, precision: Precision) -> Frontier:
    """Orders the upgrades of a graph that is fused and not quantised."""
    return frontier_of(matrices_of(graph, precision), precision, untied_head(graph))


def upgrades_within(
    max_mb: float, graph: ir.Model, precision: Precision, frontier: Frontier
) -> int:
    """Counts the upgrades that a file of weights of `max_mb` holds. Raises ExportError."""

    def size(upgrades: int) -> int:
        return size_of_weights(quantize(graph.clone(), precision, frontier.plan(upgrades)))

    counts = range(len(frontier.upgrades) + 1)
    fitting = bisect_right(counts, max_mb * MB, key=size)
    if not fitting:
        raise budget_too_small(precision, size(0))
    return counts[fitting - 1]


def with_margin(tolerance: DecoderTolerance) -> DecoderTolerance:
    """Returns the limits that hold on the text for choosing by."""
    ratio = tolerance.max_perplexity_ratio
    return DecoderTolerance(
        max_kl=tolerance.max_kl * MARGIN,
        min_top1_agreement=1 - (1 - tolerance.min_top1_agreement) * MARGIN,
        max_perplexity_ratio=min(ratio, 1 + (ratio - 1) * MARGIN),
    )


def _nothing_holds(last: MeasuredPlan, tolerance: DecoderTolerance) -> ExportError:
    return ExportError(
        f"Not even the largest plan keeps [tolerance] on the text for choosing by: {last}. The "
        f"limits are KL {tolerance.max_kl:g}, top-1 {tolerance.min_top1_agreement:g} and ratio "
        f"{tolerance.max_perplexity_ratio:g}, of which {MARGIN:.0%} may be used up there. Widen "
        f'[tolerance], choose a finer block_size, or set weights = "fp32".'
    )


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
        self.measured: list[MeasuredPlan] = []
        self.frontier = frontier_of_graph(graph, precision)

    def chosen(self, tolerance: DecoderTolerance) -> int:
        """Counts the upgrades of the plan that is chosen. Raises ExportError."""
        if self._precision.max_mb is None:
            return choose(self.frontier, self.measure, tolerance).upgrades
        return upgrades_within(self._precision.max_mb, self._graph, self._precision, self.frontier)

    def measure(self, upgrades: int) -> MeasuredPlan:
        """Measures the plan with so many upgrades, and reports it."""
        directory = self._directory / "plan"
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
