"""The goals, as ratios in one run, and whether they are met.

A ratio is ours over theirs: below 1 is better for a time or a size, above 1 for a speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Medians = Mapping[str, Mapping[str, float]]
"""Of each entry, by metric."""

MODEL = "the model"
"""An entry of its own: its files' size, beside which stands what a first start reads."""
REFERENCES = ("llama-server", "plain")
"""What a row of BENCHMARKS.md names beside ours."""
OURS = ("kindling", "kindling-lambda")


@dataclass(frozen=True, slots=True)
class Goal:
    """One row of the table."""

    ours: str
    metric: str
    theirs: str
    limit: float
    at_least: bool = False
    """Else at most."""

    @property
    def wanted(self) -> str:
        """The goal as text: <= 0.8x."""
        return f"{'>=' if self.at_least else '<='} {self.limit:g}x"

    def is_met(self, ratio: float) -> bool:
        """Returns whether a measured ratio is good enough."""
        return ratio >= self.limit if self.at_least else ratio <= self.limit


GOALS = (
    Goal("kindling-lambda", "cold_start_ms", "llama-server", 0.8),
    Goal("kindling", "cold_start_ms", "llama-server", 1.0),
    Goal("kindling-lambda", "first_start_ms", "llama-server", 1.0),
    Goal("kindling", "first_start_ms", "llama-server", 1.0),
    Goal("kindling-lambda", "first_start_read_mb", MODEL, 1.3),
    Goal("kindling", "first_start_read_mb", MODEL, 1.3),
    Goal("kindling", "first_token_38_ms", "llama-server", 0.6),
    Goal("kindling", "first_token_512_ms", "llama-server", 0.4),
    Goal("kindling", "first_token_1800_ms", "llama-server", 0.4),
    Goal("kindling", "decode_1_tok_s", "llama-server", 1.4, at_least=True),
    Goal("kindling", "decode_8_tok_s", "llama-server", 2.5, at_least=True),
    Goal("kindling", "peak_rss_mb", "llama-server", 1.0),
    Goal("kindling", "cold_start_ms", "plain", 0.1),
    Goal("kindling", "decode_1_tok_s", "plain", 9.0, at_least=True),
    Goal("kindling", "peak_rss_mb", "plain", 0.25),
    Goal("kindling", "installed_mb", "plain", 0.25),
)


def ratio(medians: Medians, ours: str, metric: str, theirs: str) -> float | None:
    """None where one of the two was not measured."""
    mine, other = medians.get(ours, {}).get(metric), medians.get(theirs, {}).get(metric)
    return mine / other if mine is not None and other else None


def judge(medians: Medians) -> list[dict[str, object]]:
    """Every goal beside its ratio; `met` is None where it was not measured."""
    rows: list[dict[str, object]] = []
    for goal in GOALS:
        measured = ratio(medians, goal.ours, goal.metric, goal.theirs)
        rows.append(
            {
                "entry": goal.ours,
                "metric": goal.metric,
                "against": goal.theirs,
                "wanted": goal.wanted,
                "ratio": None if measured is None else round(measured, 3),
                "met": None if measured is None else goal.is_met(measured),
            }
        )
    return rows


def ratios(medians: Medians) -> dict[str, dict[str, dict[str, float]]]:
    """Each of ours against every other, by metric."""
    table: dict[str, dict[str, dict[str, float]]] = {}
    for theirs in medians.keys() - {*OURS, MODEL}:
        for ours in OURS:
            for metric in medians.get(ours, {}):
                measured = ratio(medians, ours, metric, theirs)
                if measured is not None:
                    table.setdefault(theirs, {}).setdefault(ours, {})[metric] = round(measured, 3)
    return table
