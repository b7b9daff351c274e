"""Sets how many cases hypothesis and schemathesis make: few in every run, many on request."""

from __future__ import annotations

import hypothesis

FUZZ = "fuzz"
"""The profile of `make test-api-fuzz`: other cases in each run, by a seed that is printed."""


def register_profiles() -> None:
    """Registers the profiles and loads the one of every day; --hypothesis-profile takes precedence.

    A slow machine is no failure.
    """
    patient = hypothesis.settings(
        deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.register_profile("patient", patient)
    hypothesis.settings.register_profile(FUZZ, patient, print_blob=True)
    hypothesis.settings.load_profile("patient")


def few_or(many: int, *, few: int) -> hypothesis.settings:
    """Draws the same `few` cases in every run: a failure is then a change's fault, not a draw's.

    With the profile FUZZ `many`, drawn anew.
    """
    return hypothesis.settings(max_examples=many if _fuzz() else few, derandomize=not _fuzz())


def is_drawn(number: int) -> bool:
    """Returns whether a run makes the case of that number, of those that stand in a fixed order.

    schemathesis lists a dozen for each field of a body, 2,000 for one with many fields: the first
    are of the whole body, and of the others every tenth is made, or all with the profile FUZZ.
    """
    return number < 40 or number % 10 == 0 or _fuzz()


def _fuzz() -> bool:
    return hypothesis.settings.get_current_profile_name() == FUZZ
