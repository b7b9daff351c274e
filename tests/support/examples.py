"""Sets how many cases hypothesis draws: a few in every run, many where somebody asks for them."""

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
    fuzz = hypothesis.settings.get_current_profile_name() == FUZZ
    return hypothesis.settings(max_examples=many if fuzz else few, derandomize=not fuzz)
