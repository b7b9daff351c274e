"""Ends an answer at a stop string, no part of which is ever sent."""

from __future__ import annotations


class StopStrings:
    """Passes text on as soon as it can no longer be part of a stop string.

    The stop string that is complete first wins, and of two that are complete with the same
    character the longer one. So the answer does not depend on how the text was cut in pieces.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._pending = ""
        self.matched: str | None = None
        """The stop string that was found: later text is not part of the answer."""

    def push(self, piece: str) -> str:
        """Returns the text that is safe to send."""
        if self.matched:
            return ""
        text = self._pending + piece
        self.matched = self._first_match(text)
        safe = text.find(self.matched) if self.matched else self._first_possible(text)
        self._pending = text[safe:]
        return text[:safe]

    def flush(self) -> str:
        """Returns the text that was held back, at the end of the answer."""
        pending, self._pending = self._pending, ""
        return "" if self.matched else pending

    def _first_match(self, text: str) -> str | None:
        """Returns the stop string that is complete first, None for none."""
        found = ((text.find(stop), stop) for stop in self._stops)
        matches = [(start + len(stop), start, stop) for start, stop in found if start >= 0]
        return min(matches)[2] if matches else None

    def _first_possible(self, text: str) -> int:
        """Returns the first position from which `text` may be the beginning of a stop string."""
        return min((partial_match(text, stop) for stop in self._stops), default=len(text))


def partial_match(text: str, marker: str) -> int:
    """Returns the first position from which the rest of `text` is the beginning of `marker`.

    That is the length of `text` for none. A whole marker in `text` is not looked for.
    """
    start = text.find(marker[0], max(0, len(text) - len(marker) + 1))
    while start >= 0:
        if marker.startswith(text[start:]):
            return start
        start = text.find(marker[0], start + 1)
    return len(text)
