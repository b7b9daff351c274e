"""Ends an answer at a stop string, of which no part ever leaves.

Knows pieces of text and nothing of tokens. Used by completion.py.
"""

from __future__ import annotations


class StopStrings:
    """Passes text on as soon as it can no longer be part of a stop string.

    The stop string that is complete first wins, and of two that are complete with the same
    character the longer one. So the answer does not depend on how the text was cut in pieces.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.matched = False
        """True once a stop string was met: what follows is not part of the answer."""

    def push(self, piece: str) -> str:
        """The text that is safe to send."""
        if self.matched:
            return ""
        text = self._held + piece
        end = self._first_match(text)
        self.matched = end is not None
        safe = self._first_possible(text) if end is None else end
        self._held = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return "" if self.matched else held

    def _first_match(self, text: str) -> int | None:
        """Where the answer ends: the start of the stop string that is complete first."""
        found = ((text.find(stop), len(stop)) for stop in self._stops)
        matches = [(start + length, start) for start, length in found if start >= 0]
        return min(matches)[1] if matches else None

    def _first_possible(self, text: str) -> int:
        """The start of the longest end of `text` with which a stop string begins."""
        return min((_overlap(text, stop) for stop in self._stops), default=len(text))


def _overlap(text: str, stop: str) -> int:
    """The first position from which `text` is the beginning of `stop`; its length for none."""
    start = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while start >= 0:
        if stop.startswith(text[start:]):
            return start
        start = text.find(stop[0], start + 1)
    return len(text)
