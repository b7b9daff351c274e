"""Samples ids from logits: greedy, or a draw from what temperature, top_k, top_p and min_p leave.

No filter sorts the vocabulary. With the largest logit as origin, weights exp((logit - max) / T)
lie in [0, 1], and each filter is a floor under them:

    top_k   the k-th largest weight, by partition
    top_p   the smallest weight of the nucleus; only the weights that can belong to it are sorted;
            0 is greedy, also between equals
    min_p   min_p itself, since the largest weight is 1

Weights below a floor become 0, and equal weights stand or fall together, so the outcome depends
on the values alone, not on the order in which some sort leaves equals. The filters follow one
another as in transformers (temperature, top_k, top_p of what is left, min_p):
https://github.com/huggingface/transformers/blob/v4.57.6/src/transformers/generation/utils.py

Logprobs are taken from the logits before any of this.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import numpy as np

from handlers.engine.params import Logprobs
from handlers.errors import EngineFault

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from handlers.engine.params import SamplingParams

# JSON has no infinity: OpenAI's word for what cannot come.
LOWEST_LOGPROB = -9999.0

# Below it, dividing by the temperature gains nothing and may overflow. vLLM's _SAMPLING_EPS.
GREEDY_TEMPERATURE = 1e-5

# Weights are summed block by block, then one block is searched: 30 microseconds where a
# running sum over 49,152 of them takes 225.
DRAW_BLOCK = 256

# What to add to the logits of eight ids, by their bits: [256, 8]. Ten microseconds for 49,152 ids,
# where unpacked bits as the condition of an assignment take 10 to 200, the more the less uniform.
BITMASK_LUT = np.where(
    np.unpackbits(np.arange(256, dtype=np.uint8)[:, np.newaxis], axis=1, bitorder="little"),
    np.float32(0),
    np.float32(-np.inf),
)


class Sampler:
    """Chooses one sequence's ids. The same seed and the same logits give the same ids.

    Python's own generator (MT19937) rather than numpy's: the sequence that a seed gives is
    documented to stay the same in every version of Python, and it imports in 1 ms where
    numpy.random takes 15 to 50.
    """

    def __init__(
        self, params: SamplingParams, prompt: NDArray[np.int64], eos_token_ids: frozenset[int]
    ) -> None:
        self._params = params
        # Python seeds by the absolute value: n and -n would give the same ids.
        seed = None if params.seed is None else params.seed % 2**64
        self._random = random.Random(seed)  # noqa: S311  no secrets here
        self._penalties = Penalties(params, prompt) if penalises(params) else None
        self._biased = np.array(list(params.logit_bias), np.int64)
        self._bias = np.array(list(params.logit_bias.values()), np.float32)
        self._eos = np.array(sorted(eos_token_ids), np.int64)
        self._banned_steps = params.min_tokens

    def sample(self, logits: NDArray[np.float32], allowed: NDArray[np.uint32] | None = None) -> int:
        """Chooses the next id. `logits` [vocab] is overwritten; `allowed` is a Constraint's bits.

        Raises EngineFault when no id can be chosen: NaN, infinity or nothing but -infinity.
        """
        if len(self._biased):
            logits[self._biased] += self._bias
        if self._penalties:
            self._penalties.apply(logits)
        if allowed is not None:
            apply_token_bitmask(logits, allowed)
        if self._banned_steps > 0:
            self._ban_eos(logits)
        token_id = self._choose(logits)
        self.accept(token_id)
        return token_id

    def accept(self, token_id: int) -> None:
        """Counts one id of the answer: for `sample` itself, and for ids that were not sampled."""
        self._banned_steps -= 1
        if self._penalties:
            self._penalties.accept(token_id)

    def _ban_eos(self, logits: NDArray[np.float32]) -> None:
        """Forbids the ids that end the answer, unless a grammar leaves nothing else."""
        kept = logits[self._eos]
        logits[self._eos] = -np.inf
        if logits.max() == -np.inf:
            logits[self._eos] = kept

    def _choose(self, logits: NDArray[np.float32]) -> int:
        best = int(logits.argmax())  # the first NaN, if there is one
        if not math.isfinite(logits[best]):
            raise EngineFault(f"The largest logit is {logits[best]}: no token can be chosen.")
        if self._params.temperature < GREEDY_TEMPERATURE or self._params.top_p == 0:
            return best
        weights = _weights(logits, logits[best], self._params.temperature)
        _filter(weights, self._params)
        return draw(weights, self._random.random())


def penalises(params: SamplingParams) -> bool:
    """Tells whether these parameters penalise anything."""
    return (
        params.repetition_penalty != 1.0
        or params.frequency_penalty != 0.0
        or params.presence_penalty != 0.0
    )


class Penalties:
    """Applies repetition, frequency and presence penalties to the ids seen, and to no other.

    Repetition covers prompt and answer: a positive logit is divided, a negative one
    multiplied (CTRL, https://arxiv.org/abs/1909.05858). Frequency and presence cover the
    answer: https://platform.openai.com/docs/api-reference/chat/create.
    """

    def __init__(self, params: SamplingParams, prompt: NDArray[np.int64]) -> None:
        self._params = params
        self._ids = np.unique(prompt)
        self._counts = np.zeros(len(self._ids), np.float32)
        self._index = {int(token): index for index, token in enumerate(self._ids)}

    def accept(self, token_id: int) -> None:
        """Counts one id of the answer."""
        index = self._index.setdefault(token_id, len(self._index))
        if index == len(self._ids):
            self._ids = np.append(self._ids, token_id)
            self._counts = np.append(self._counts, np.float32(0))
        self._counts[index] += 1

    def apply(self, logits: NDArray[np.float32]) -> None:
        """Changes `logits` [vocab] in place."""
        params = self._params
        seen = logits[self._ids]
        repetition = np.float32(params.repetition_penalty)
        seen = np.where(seen > 0, seen / repetition, seen * repetition)
        seen -= np.float32(params.frequency_penalty) * self._counts
        seen -= np.float32(params.presence_penalty) * (self._counts > 0)
        logits[self._ids] = seen


def apply_token_bitmask(logits: NDArray[np.float32], allowed: NDArray[np.uint32]) -> None:
    """Sets to -infinity the logits [vocab] whose bit in `allowed` [ceil(vocab / 32)] is 0."""
    octets = allowed.astype("<u4", copy=False).view(np.uint8)
    logits += BITMASK_LUT.take(octets, axis=0).reshape(-1)[: len(logits)]


def _weights(
    logits: NDArray[np.float32], largest: np.float32, temperature: float
) -> NDArray[np.float32]:
    """Computes exp((logit - largest) / temperature), in place."""
    np.subtract(logits, largest, out=logits)
    np.divide(logits, np.float32(temperature), out=logits)
    return np.exp(logits, out=logits)


def _filter(weights: NDArray[np.float32], params: SamplingParams) -> None:
    """Sets to 0 what top_k, top_p and min_p drop."""
    if 0 < params.top_k < len(weights):
        _drop_below(weights, np.partition(weights, -params.top_k)[-params.top_k])
    if params.top_p < 1.0:
        _drop_below(weights, nucleus_floor(weights, params.top_p))
    if params.min_p > 0.0:
        _drop_below(weights, np.float32(params.min_p))


def _drop_below(weights: NDArray[np.float32], floor: np.float32) -> None:
    # A product is 3 times as fast as assigning through a mask.
    np.multiply(weights, weights >= floor, out=weights)


def nucleus_floor(weights: NDArray[np.float32], top_p: float) -> np.float32:
    """Returns the smallest of the fewest, largest weights that hold `top_p` of the mass.

    Nucleus sampling, https://arxiv.org/abs/1904.09751. What lies outside holds at most
    (1 - top_p) of the mass; the weights below (1 - top_p) * mass / count hold less than that
    together, so all of them lie outside and need no sorting. Halved, because the mass is a
    rounded sum.
    """
    mass = weights.sum(dtype=np.float64)
    outside = np.float32(0.5 * (1.0 - top_p) * mass / len(weights))
    candidates = np.sort(weights.compress(weights > outside))[::-1]
    reached = np.searchsorted(np.cumsum(candidates, dtype=np.float64), top_p * mass)
    floor: np.float32 = candidates[min(int(reached), len(candidates) - 1)]
    return floor


def draw(weights: NDArray[np.float32], uniform: float) -> int:
    """Draws an index: where the running sum of weights passes `uniform` (in [0, 1)) of the whole.

    Never an index of weight 0.
    """
    starts = np.arange(0, len(weights), DRAW_BLOCK)
    blocks = np.cumsum(np.add.reduceat(weights, starts, dtype=np.float64))
    target = uniform * float(blocks[-1])
    block = _first_above(blocks, target)
    if block:
        target -= float(blocks[block - 1])
    start = int(starts[block])
    return start + _first_above(
        np.cumsum(weights[start : start + DRAW_BLOCK], dtype=np.float64), target
    )


def _first_above(running: NDArray[np.float64], target: float) -> int:
    """Returns the first index whose running sum is above `target`, the last index at most."""
    target = min(target, math.nextafter(float(running[-1]), 0.0))
    return int(np.searchsorted(running, target, side="right"))


def compute_logprobs(logits: NDArray[np.float32], token_id: int, count: int) -> Logprobs:
    """Computes the logprobs of an id and of the `count` likeliest ones, over the whole vocabulary.

    `logits` [vocab] stays as it is. An id that the model itself rules out, by a logit of -infinity,
    has LOWEST_LOGPROB. Raises EngineFault where the logits are no numbers.
    """
    normaliser = _logsumexp(logits)
    likeliest = _largest(logits, count)
    return Logprobs(
        token_id,
        max(LOWEST_LOGPROB, float(logits[token_id]) - normaliser),
        tuple((int(i), max(LOWEST_LOGPROB, float(logits[i]) - normaliser)) for i in likeliest),
    )


def _logsumexp(logits: NDArray[np.float32]) -> float:
    """Sums in float64: of 49,152 float32 terms a running sum loses the fourth digit."""
    largest = logits.max()
    if not math.isfinite(largest):
        raise EngineFault(f"The largest logit is {largest}: it has no logarithm of a probability.")
    weights = np.exp(logits - largest)
    return float(largest) + math.log(weights.sum(dtype=np.float64))


def _largest(logits: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Returns the indices of the largest logits, descending; of equal ones the lower first."""
    count = min(count, len(logits))
    if count == 0:
        return np.empty(0, np.int64)
    floor = np.partition(logits, -count)[-count]
    candidates = np.flatnonzero(logits >= floor)
    order = np.argsort(-logits[candidates], kind="stable")
    return candidates[order[:count]]
