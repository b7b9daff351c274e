"""Texts cut into pieces at any places."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st

places = st.lists(st.floats(0, 1), max_size=8)


def cut(text: str, places: list[float]) -> list[str]:
    """The pieces of a text that is cut at these parts of its length."""
    bounds = sorted({0, len(text), *(int(place * len(text)) for place in places)})
    return [text[start:end] for start, end in itertools.pairwise(bounds)]
