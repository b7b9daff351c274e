"""The smallest plan that holds is found in few measurements, however its drift falls."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model_export.plan_choice import MARGIN, MOST, MeasuredPlan, choose, with_margin
from model_export.quantize.plan import Frontier, Upgrade
from model_export.recipe import DecoderTolerance
from model_export.reporting import ExportError

LIMITS = DecoderTolerance(max_kl=0.1, min_top1_agreement=0.9, max_perplexity_ratio=1.1)
MATRICES = 200
STEP = -(-MATRICES // 31)
"""Upgrades from one plan to the next."""
Rule = Callable[[float], float]


def limited(max_kl: float) -> DecoderTolerance:
    return DecoderTolerance(max_kl=max_kl, min_top1_agreement=0.9, max_perplexity_ratio=1.1)


class Script:
    """Measures plans by a rule: KL over the share of the loss that is left. The rest is perfect."""

    def __init__(
        self,
        kl: Rule = lambda left: left,
        matrices: int = MATRICES,
        top1: Rule = lambda _: 1.0,
        ratio: Rule = lambda _: 1.0,
    ) -> None:
        # Each keeps a fortieth of what is left.
        gains = [0.975**number for number in range(matrices)]
        each = [Upgrade(str(number), "int8", gain, 10) for number, gain in enumerate(gains)]
        self.frontier = Frontier({upgrade.matrix: "int4" for upgrade in each}, tuple(each))
        self.rules, self.asked = (kl, top1, ratio), list[int]()

    def measure(self, upgrades: int) -> MeasuredPlan:
        self.asked.append(upgrades)
        return self.plan(upgrades)

    def plan(self, upgrades: int) -> MeasuredPlan:
        left = self.frontier.loss(upgrades) / (self.frontier.loss(0) or 1.0)
        matrices = len(self.frontier.upgrades)
        words = f"{matrices - upgrades} int4, {upgrades} int8"
        return MeasuredPlan(
            upgrades, words, 1000 + 10 * upgrades, *(rule(left) for rule in self.rules)
        )

    def choose(self, limits: DecoderTolerance = LIMITS) -> MeasuredPlan:
        return choose(self.frontier, self.measure, limits)

    def smallest(self, limits: DecoderTolerance) -> int:
        """The fewest upgrades that hold, among all counts of them."""
        bounds = with_margin(limits)
        return next(n for n in range(MATRICES + 1) if self.plan(n).keeps(bounds))


def test_where_all_int4_holds_nothing_else_is_measured() -> None:
    script = Script()
    assert script.choose(limited(2.0)).upgrades == 0
    assert script.asked == [0]


@pytest.mark.parametrize("limit", [0.95, 0.7, 0.5, 0.31, 0.1, 0.03, 0.01])
def test_where_the_drift_is_as_predicted_the_second_plan_is_the_one(limit: float) -> None:
    script = Script()
    chosen = script.choose(limited(limit))
    assert len(script.asked) == 2
    assert chosen.kl <= MARGIN * limit
    assert chosen.upgrades - script.smallest(limited(limit)) < STEP


def noisy(left: float) -> float:
    return left * (1 + 0.05 * math.sin(1000 * left))


@pytest.mark.parametrize("limit", [0.95, 0.7, 0.5, 0.31, 0.2])
@pytest.mark.parametrize(
    ("kl", "most", "steps"),
    [
        (lambda left: 0.1 + 0.9 * left, 3, 1),
        (lambda left: left**0.7, 5, 1),
        (lambda left: left**1.5, MOST, 2),
        (noisy, 3, 1),
        (lambda left: 0.5 * left + (0.5 if left > 0.4 else 0.0), MOST, 4),
    ],
    ids=["floor", "concave", "convex", "noise", "jump"],
)
def test_a_plan_near_the_smallest_is_found_by_a_line_through_what_was_measured(
    kl: Rule, most: int, steps: int, limit: float
) -> None:
    script = Script(kl)
    chosen = script.choose(limited(limit))
    assert chosen == script.plan(chosen.upgrades)
    assert chosen.kl <= MARGIN * limit
    assert len(script.asked) == len(set(script.asked)) <= most
    assert chosen.upgrades - script.smallest(limited(limit)) <= steps * STEP


def test_the_chosen_plan_holds_whatever_the_drift_does_and_takes_no_more_than_bisection() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        steps = random.uniform(size=MATRICES + 1)
        script = Script(lambda left, steps=steps: float(steps[int(left * MATRICES)]))  # type: ignore[misc]
        try:
            chosen = script.choose(limited(0.5))
        except ExportError:
            assert MATRICES in script.asked
        else:
            assert chosen.kl <= MARGIN * 0.5
            assert chosen.upgrades in script.asked
        assert len(script.asked) == len(set(script.asked)) <= MOST


def test_where_predictions_mislead_what_is_left_is_halved() -> None:
    """It falls at once, late: every line foretells too small a plan, and then too large a one."""
    script = Script(lambda left: 1.0 if left > 0.02 else 0.3)
    chosen = script.choose(limited(0.5))
    assert chosen.kl == 0.3
    assert len(script.asked) <= MOST
    assert chosen.upgrades - script.smallest(limited(0.5)) <= 4 * STEP


@pytest.mark.parametrize(
    ("figures", "limits"),
    [
        ({"top1": lambda left: 1 - 0.2 * math.sqrt(left)}, DecoderTolerance(math.inf, 0.9, 9.0)),
        ({"ratio": lambda left: 1 + 0.2 * left}, DecoderTolerance(math.inf, 0.0, 1.1)),
    ],
    ids=["top1", "ratio"],
)
def test_the_tightest_limit_leads_whichever_it_is(
    figures: dict[str, Any], limits: DecoderTolerance
) -> None:
    script = Script(**figures)
    chosen = script.choose(limits)
    assert len(script.asked) == 2
    assert 0 < chosen.upgrades - script.smallest(limits) + 1 <= STEP


def test_a_model_of_few_matrices_is_searched_too() -> None:
    half = [Script(lambda left: left, count).choose(limited(0.65)).upgrades for count in (1, 2, 3)]
    assert half == [1, 1, 2]


@pytest.mark.parametrize(
    "script",
    [Script(lambda left: 0.2 + left), Script(top1=lambda _: 0.5), Script(lambda _: 1.0, 0)],
    ids=["kl", "top1", "none"],
)
def test_where_no_plan_holds_the_error_says_what_was_measured_and_what_to_do(
    script: Script,
) -> None:
    count = len(script.frontier.upgrades)
    with pytest.raises(ExportError, match=f"choosing by: 0 int4, {count} int8, .* MB: KL") as say:
        script.choose()
    assert "Widen [tolerance]" in str(say.value)
    assert len(script.asked) <= MOST


def test_figures_that_are_no_numbers_hold_nothing() -> None:
    with pytest.raises(ExportError, match="KL nan"):
        Script(lambda _: math.nan).choose()


def test_a_fifth_of_each_limit_is_left_for_the_other_half_of_the_text() -> None:
    limits = with_margin(LIMITS)
    assert limits.max_kl == pytest.approx(0.08)
    assert limits.min_top1_agreement == pytest.approx(0.92)
    assert limits.max_perplexity_ratio == pytest.approx(1.08)
    none = with_margin(DecoderTolerance(float("inf"), 0.0, float("inf")))
    assert MeasuredPlan(0, "", 1, 99.0, 0.2, 99.0).keeps(none)
    assert with_margin(DecoderTolerance(1, 1, 0.9)).max_perplexity_ratio == 0.9
