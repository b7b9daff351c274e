"""Vectors as JSON has them, and as base64. Called by embeddings.py."""

from __future__ import annotations

from binascii import b2a_base64
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# That give every float32 back: https://en.wikipedia.org/wiki/IEEE_754#Character_representation
DIGITS = 9


def cut(rows: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
    """The first `dimensions` of each row, at length 1 again; all of them as they are."""
    if dimensions is None or dimensions == rows.shape[1]:
        return rows
    kept = rows[:, :dimensions]
    lengths = np.linalg.norm(kept, axis=1, keepdims=True)
    shortened: NDArray[np.float32] = kept / np.maximum(lengths, np.finfo(np.float32).tiny)
    return shortened


def in_base64(rows: NDArray[np.float32]) -> list[str]:
    """Of the little-endian float32 of each row, which is what OpenAI's client asks for."""
    little = np.ascontiguousarray(rows, "<f4")
    return [b2a_base64(row, newline=False).decode() for row in little]


def in_json(rows: NDArray[np.float32]) -> list[list[float]]:
    """Numbers that are written with as many digits as float32 needs.

    Python would write all 17 of the double that a float32 becomes, and the body would be half as
    long again. A decimal of 9 digits is a whole number divided or multiplied by a power of ten,
    both of which are exact, so the result is the very double that is written like it.
    """
    exact = rows.astype(np.float64)
    magnitudes = np.floor(np.log10(np.abs(exact), where=exact != 0, out=np.zeros_like(exact)))
    scale = 10.0 ** (DIGITS - 1 - magnitudes)
    numbers: Any = (np.round(exact * scale) / scale).tolist()
    vectors: list[list[float]] = numbers
    return vectors
