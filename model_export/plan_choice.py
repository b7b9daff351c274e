"""Chooses the smallest plan that keeps a recipe's limits, in few measurements.

Plans are nested, and larger ones lose less. A plan's strain is what it uses up of its tightest
limit, and nearly a line over what the frontier says that it loses (quantize/plan.py). So after the
smallest the plan is measured that is predicted to hold, then the one that the line through the
nearest two foretells, until no smaller one is predicted to hold. Where predictions mislead, the
halves of what is left are measured. The chosen plan has always been measured and held.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from model_export.quantize.plan import Frontier
from model_export.recipe import DecoderTolerance
from model_export.reporting import ExportError
from model_export.sizing.limits import MB
from model_export.verify.drift import first_over_limit

MARGIN = 0.8
"""Of a limit, what may be used up on the text that a plan is chosen by, as the other half differs.

At a top-1 agreement of 0.90, two standard errors of the difference are 0.02: 1,700 tokens each.
"""
STEPS = 31
"""Plans beside the smallest, at even distances in bytes."""
MOST = 6
"""Plans that are measured at most: as many as bisection would take."""
_GUESSES = 2
"""Plans that are measured because they are predicted to hold, before bisection."""


@dataclass(frozen=True, slots=True)
class MeasuredPlan:
    """A plan, its bytes, and its drift on the text for choosing by."""

    upgrades: int
    """How many of the frontier's it has; 0 has any plan of equal bits too."""
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

    def strain(self, limits: DecoderTolerance) -> float:
        """Returns the share of its limit of the figure that uses up most.

        Of the positions with another top token the square is taken, since their share grows as the
        root of the KL divergence.
        """
        other, allowed = 1 - self.top1_agreement, 1 - limits.min_top1_agreement
        return max(
            _share(self.kl, limits.max_kl),
            _share(other, allowed) ** 2,
            _share(self.perplexity_ratio - 1, limits.max_perplexity_ratio - 1),
        )


Measure = Callable[[int], MeasuredPlan]
"""Measures the plan with so many upgrades."""


def choose(frontier: Frontier, measure: Measure, tolerance: DecoderTolerance) -> MeasuredPlan:
    """Returns the smallest plan that keeps the limits. Raises ExportError where none does."""
    limits = with_margin(tolerance)
    shares = (step / STEPS for step in range(1, STEPS + 1))
    counts = [0, *(count for count in frontier.counts(shares) if count)]
    search = _Search([frontier.loss(count) for count in counts])
    found: dict[int, MeasuredPlan] = {}
    while (place := search.next_place()) is not None:
        found[place] = measure(counts[place])
        search.add(place, found[place].strain(limits), found[place].keeps(limits))
    if search.holding == len(counts):
        raise _nothing_holds(found[len(counts) - 1], tolerance)
    return found[search.holding]


def with_margin(tolerance: DecoderTolerance) -> DecoderTolerance:
    """Returns the limits that hold on the text for choosing by."""
    ratio = tolerance.max_perplexity_ratio
    return DecoderTolerance(
        max_kl=tolerance.max_kl * MARGIN,
        min_top1_agreement=1 - (1 - tolerance.min_top1_agreement) * MARGIN,
        max_perplexity_ratio=min(ratio, 1 + (ratio - 1) * MARGIN),
    )


@dataclass(slots=True)
class _Search:
    """The places of plans by size, between one that does not hold and one that does."""

    losses: Sequence[float]
    """What each loses, by the frontier."""
    failing: int = -1
    """The largest plan that was measured and does not hold."""
    holding: int = field(init=False)
    """The smallest that does; their number where none was found."""
    strains: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.holding = len(self.losses)

    def add(self, place: int, strain: float, holds: bool) -> None:
        """Takes in a measurement."""
        self.strains[place] = strain
        if holds:
            self.holding = place
        else:
            self.failing = place

    def next_place(self) -> int | None:
        """Returns the plan to measure next, None where the smallest that holds is known."""
        measured, last = len(self.strains), len(self.losses) - 1
        between = range(self.failing + 1, self.holding)
        if not measured:
            return 0
        if not between or measured == MOST:
            return None
        none_holds_yet = self.holding > last
        if none_holds_yet and measured == MOST - 1:
            return last
        line = self._line()
        if line is None:
            return between[len(between) // 2]
        predicted = next((place for place in between if line(self.losses[place]) <= 1), None)
        if predicted is None:
            return last if none_holds_yet else None
        if none_holds_yet or measured <= _GUESSES:
            return predicted
        return between[len(between) // 2]

    def _line(self) -> Callable[[float], float] | None:
        """Returns the strain over the loss, by the nearest two plans; None where it does not rise.

        After a single one it is proportional.
        """
        before = sorted(place for place in self.strains if place < self.holding)
        pair = [self.failing, self.holding] if self.holding in self.strains else before[-2:]
        points = [(self.losses[place], self.strains[place]) for place in pair]
        (x1, y1), (x0, y0) = points if len(points) == 2 else (points[0], (0.0, 0.0))
        slope = (y1 - y0) / (x1 - x0) if x1 > x0 else 0.0
        if not (slope > 0 and math.isfinite(slope)):
            return None
        return lambda loss: y0 + slope * (loss - x0)


def _share(value: float, limit: float) -> float:
    """Returns what a figure uses up of its limit."""
    if limit > 0:
        return max(value, 0.0) / limit
    return 0.0 if value <= limit else math.inf


def _nothing_holds(last: MeasuredPlan, tolerance: DecoderTolerance) -> ExportError:
    return ExportError(
        f"Not even the largest plan keeps [tolerance] on the text for choosing by: {last}. The "
        f"limits are KL {tolerance.max_kl:g}, top-1 {tolerance.min_top1_agreement:g} and ratio "
        f"{tolerance.max_perplexity_ratio:g}, of which {MARGIN:.0%} may be used up there. Widen "
        f'[tolerance], choose a finer block_size, or set weights = "fp32".'
    )
