"""Chooses the weights of each matrix for weights = "auto": the smallest artefact that holds.

Plans are nested, from all int4 to all int8 (quantize/plan.py), and larger ones lose less. All int4
is measured first; where it is over a limit, bisection finds the smallest plan that is not. They are
measured on the half of the evaluation text that the gates do not judge by, and have to keep the
limits by a margin, since the other half differs. Each plan's artefact takes its matrices from two
that are written once, all in int4 and all in int8.
"""

from __future__ import annotations

import shutil
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import onnx_ir as ir

from handlers.artifact.manifest import GRAPH, WEIGHTS, PlanInfo
from model_export.quantize import matrices_of, quantize
from model_export.quantize.plan import Frontier, frontier_of
from model_export.recipe import DecoderTolerance, Precision
from model_export.reporting import ExportError, Report
from model_export.save import save, size_of_weights
from model_export.save.written import written_tensors
from model_export.sizing.limits import budget_too_small
from model_export.verify.drift import first_over_limit
from model_export.verify.exchange import DecoderReference, DriftRequest
from model_export.verify.launch import verify

MB = 1_000_000
MARGIN = 0.9
"""Of a limit, what may be used up on the text that a plan is chosen by."""
STEPS = 31
"""Plans beside all int4, at even distances in bytes: bisection measures five of them at most."""
BAR = 30
"""Characters of the longest bar in the table of `--plan`."""
SHOWN = (0, 0.1, 0.25, 0.5, 0.75, 1)
"""Shares of the bytes that int8 takes more, in the table of `--plan`."""


@dataclass(frozen=True, slots=True)
class MeasuredPlan:
    """A plan, its bytes, and its drift on the text for choosing by."""

    int8: int
    """The matrices in int8: the first of the frontier."""
    matrices: int
    bytes: int
    """Of the file of weights."""
    kl: float
    top1_agreement: float
    perplexity_ratio: float

    def __str__(self) -> str:
        return (
            f"{self.int8} of {self.matrices} matrices in int8, {self.bytes / MB:.1f} MB: "
            f"KL {self.kl:.3f}, top-1 {self.top1_agreement:.3f}, ratio {self.perplexity_ratio:.3f}"
        )

    def keeps(self, limits: DecoderTolerance) -> bool:
        """Tells whether no figure is over its limit."""
        return first_over_limit(self, limits) is None


Measure = Callable[[int], MeasuredPlan]
"""Measures the plan with so many matrices in int8."""


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
        f"Not even int8 in all matrices keeps [tolerance] on the text for choosing by: {last}. The "
        f"limits are KL {tolerance.max_kl:g}, top-1 {tolerance.min_top1_agreement:g} and ratio "
        f"{tolerance.max_perplexity_ratio:g}, of which {MARGIN:.0%} may be used up there. Widen "
        f'[tolerance], choose a finer block_size or lm_head, or set weights = "fp32".'
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
        """Orders the matrices of `graph`, which is fused and not quantised, and stays so."""
        self._graph, self._precision, self._reference = graph, precision, reference
        self._directory, self._threads, self._report = directory, threads, report
        self._written: dict[str, Mapping[str, ir.TensorProtocol]] = {}
        self.measured: list[MeasuredPlan] = []
        self.frontier = frontier_of(matrices_of(graph), precision)

    def chosen(self, tolerance: DecoderTolerance) -> int:
        """Counts the matrices of the frontier that get int8. Raises ExportError."""
        budget = self._precision.max_mb
        if budget is None:
            return choose(self.frontier, self.measure, tolerance).int8
        counts = range(len(self.frontier.candidates) + 1)
        fitting = bisect_right(counts, budget * MB, key=self._size)
        if not fitting:
            raise budget_too_small(self._precision, self._size(0))
        return counts[fitting - 1]

    def measure(self, int8: int) -> MeasuredPlan:
        """Measures the plan with so many matrices in int8, and reports it."""
        reference, directory = self._reference, self._artefact(int8)
        request = DriftRequest(
            graph=directory / GRAPH,
            windows=reference.choosing,
            logits=reference.logits,
            skipped=sum(map(len, reference.windows)),
            vocabulary=reference.vocabulary,
            threads=self._threads,
        )
        figures = verify(request, self._directory / "exchange", self._report).figures
        found = MeasuredPlan(
            int8=int8,
            matrices=len(self.frontier.candidates),
            bytes=(directory / WEIGHTS).stat().st_size,
            kl=figures["kl"],
            top1_agreement=figures["top1_agreement"],
            perplexity_ratio=figures["perplexity_ratio"],
        )
        self.measured.append(found)
        self._report(f"plan: {found}")
        return found

    def quantised(self, int8: int) -> ir.Model:
        """Returns the graph of a plan; what is written of its matrices is not computed again."""
        plan = self.frontier.plan(int8)
        graph = quantize(self._graph.clone(), self._precision, plan)
        if self._written:
            for name, value in graph.graph.initializers.items():
                weights = plan.get(name.rpartition(".")[0], "int4")
                value.const_value = self._tensors(weights)[name]
        return graph

    def info(self, int8: int) -> PlanInfo:
        """Returns what a manifest says of a plan."""
        names = [candidate.name for candidate in self.frontier.candidates]
        measured = tuple(map(asdict, self.measured))
        return PlanInfo(matrices=len(names), int8=tuple(names[:int8]), measured=measured)

    def _size(self, int8: int) -> int:
        return size_of_weights(self.quantised(int8))

    def _artefact(self, int8: int) -> Path:
        """Writes the graph and the weights of a plan. Returns the directory."""
        for weights, count in (("int4", 0), ("int8", len(self.frontier.candidates))):
            if int8 == count:
                self._tensors(weights)
                return self._directory / weights
        directory = self._directory / "plan"
        shutil.rmtree(directory, ignore_errors=True)
        save(self.quantised(int8), directory, threads=self._threads)
        return directory

    def _tensors(self, weights: str) -> Mapping[str, ir.TensorProtocol]:
        """Returns what is written of the graph with all matrices alike, and writes it at first."""
        if weights not in self._written:
            self._report(f"quantize to {self._precision.all_in(weights).describe()}")
            graph = quantize(self._graph.clone(), self._precision.all_in(weights))
            directory, journal = self._directory / weights, self._directory / f"{weights}.journal"
            save(graph, directory, threads=self._threads, report=self._report, journal=journal)
            self._written[weights] = written_tensors(directory)
        return self._written[weights]


def table(plans: Sequence[MeasuredPlan]) -> str:
    """Returns what `--plan` prints: a line for each plan, the smallest first, with a bar of KL."""
    rows = [
        (
            f"{plan.int8} of {plan.matrices}",
            f"{plan.bytes / MB:.1f}",
            f"{plan.top1_agreement:.3f}",
            f"{plan.perplexity_ratio:.3f}",
            f"{plans[0].bytes / plan.bytes:.2f}",
            f"{plan.kl:.4f}",
        )
        for plan in plans
    ]
    head = ("int8", "MB", "top-1", "ratio", "decode speed", "KL")
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for row in (head, *rows)
    ]
    most = max(plan.kl for plan in plans) or 1.0
    bars = ("", *("\N{FULL BLOCK}" * round(BAR * plan.kl / most) for plan in plans))
    return "\n".join(f"{line}  {bar}".rstrip() for line, bar in zip(lines, bars, strict=True))
