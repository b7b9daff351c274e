"""What a failed check says."""

from __future__ import annotations


class Failure(Exception):
    """One sentence about what does not work."""


class Silence(Failure):
    """Nothing came for as long as we wait."""
