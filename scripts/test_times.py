"""Prints what the steps of .ci/run took, the minutes of each tier, and the slowest tests.

Fails where a step took more than .ci/budget.toml allows.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections import Counter
from pathlib import Path

BUDGET = Path(__file__).resolve().parent.parent / ".ci" / "budget.toml"
SLOWEST = 30


def main(directory: Path) -> int:
    """Reads what .ci/run and pytest's --times wrote into `directory`. Returns 1 over the budget."""
    steps = _steps(directory / "steps")
    tests = _tests(directory / "tests")
    print(f"\nThe {SLOWEST} slowest tests, with their fixtures, in seconds:")
    for seconds, tier, name in sorted(tests, reverse=True)[:SLOWEST]:
        print(f"{seconds:8.1f}  {tier:10} {name}")
    _print_tiers(tests)
    return _compare(steps, tomllib.loads(BUDGET.read_text(encoding="utf-8"))["minutes"])


def _steps(path: Path) -> Counter[str]:
    """Minutes by the name of the step, of lines with a name and seconds."""
    steps: Counter[str] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        name, seconds = line.rsplit(" ", 1)
        steps[name] += round(float(seconds)) / 60  # type: ignore[assignment]
    return steps


def _tests(path: Path) -> list[tuple[float, str, str]]:
    if not path.exists():
        return []
    runs = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(took, tier, name) for run in runs for name, tier, took in run["tests"]]


def _print_tiers(tests: list[tuple[float, str, str]]) -> None:
    print("\nMinutes of all tests of each tier, added up:")
    tiers = {tier for _, tier, _ in tests}
    for tier in sorted(tiers):
        took = [seconds for seconds, each, _ in tests if each == tier]
        print(f"{sum(took) / 60:8.1f}  {tier:10} {len(took)} tests")


def _compare(steps: Counter[str], budget: dict[str, float]) -> int:
    print("\nMinutes of each step, and the budget in .ci/budget.toml:")
    over = []
    for name, allowed in budget.items():
        took = sum(steps.values()) if name == "all" else steps[name]
        print(f"{took:8.1f} of {allowed:5.1f}  {name}")
        over += [name] if took > allowed else []
    unknown = set(steps) - set(budget)
    if over:
        print(f"FAILED: over the budget: {', '.join(over)}.")
    if unknown:
        print(f"FAILED: steps without a budget: {', '.join(sorted(unknown))}.")
    return int(bool(over or unknown))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
