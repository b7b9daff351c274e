"""The error of a check that failed."""

from __future__ import annotations


class Failure(Exception):
    """One sentence about what does not work."""


class Silence(Failure):
    """Nothing came for as long as we wait."""
