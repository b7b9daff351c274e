"""How likely the model holds ids to be: log softmax over the whole vocabulary, exact.

Called for sequences whose request asks for it, and for no other. Knows one row of logits.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from handlers.engine.params import Logprobs
from handlers.errors import EngineFault

if TYPE_CHECKING:
    from numpy.typing import NDArray


# JSON has no infinity: OpenAI's word for what cannot come.
LOWEST = -9999.0


def score(logits: NDArray[np.float32], token_id: int, count: int) -> Logprobs:
    """The logprobs of an id and of the `count` likeliest ones. `logits` [vocab] stays as it is.

    An id that the model itself rules out, by a logit of -infinity, has the lowest there is. Raises
    EngineFault where the logits are no numbers.
    """
    normaliser = _logsumexp(logits)
    likeliest = _largest(logits, count)
    return Logprobs(
        token_id,
        max(LOWEST, float(logits[token_id]) - normaliser),
        tuple((int(i), max(LOWEST, float(logits[i]) - normaliser)) for i in likeliest),
    )


def _logsumexp(logits: NDArray[np.float32]) -> float:
    """The sum is float64: of 49,152 float32 terms a running one loses the fourth digit."""
    largest = logits.max()
    if not math.isfinite(largest):
        raise EngineFault(f"The largest logit is {largest}: it has no logarithm of a probability.")
    weights = np.exp(logits - largest)
    return float(largest) + math.log(weights.sum(dtype=np.float64))


def _largest(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Indices of the largest logits, in descending order; of equal ones the lower index first."""
    count = min(count, len(logits))
    if count == 0:
        return np.empty(0, np.int64)
    floor = np.partition(logits, -count)[-count]
    candidates = np.flatnonzero(logits >= floor)
    order = np.argsort(-logits[candidates], kind="stable")
    return candidates[order[:count]]
