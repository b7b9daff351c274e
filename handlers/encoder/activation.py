"""Logits to scores, as the model was trained.

Called by what classifies and what ranks, and by the gate that compares scores as clients see them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def activated(logits: NDArray[np.float32], activation: str) -> NDArray[np.float64]:
    """[rows, labels], by EncoderInfo's `activation`."""
    exact = logits.astype(np.float64)
    if activation == "softmax":
        weights = np.exp(exact - exact.max(axis=1, keepdims=True))
        shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
        return shares
    if activation == "sigmoid":
        odds: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -exact))
        return odds
    return exact
