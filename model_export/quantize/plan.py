"""Orders what may have more bits than compact4 by what that keeps, for plans of weights = "auto".

What a layer's outputs lose is the squared error of its weights, each times the mean square of its
input. It is estimated on some of the rows, and divided by the root of the outputs' own energy: as
it is, it says too much of layers with large outputs, and as a share of that energy too little. What
the output projection loses is known in nats, as its outputs are the logits. A matrix gets more bits
first where each byte that they take keeps the most (docs/precision.md).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_export.quantize.block_layout import LANES
from model_export.quantize.quantized_tensors import fitting_importance, quantised, quantized_tensors
from model_export.quantize.stored_blocks import stored_blocks
from model_export.recipe import BITS, Precision
from model_export.weights import ArrayWeight, Floats, Weight, reads_by_rows

Plan = Mapping[str, str]
"""The weights of each matrix, by its name in the graph: one of BITS."""
_EVERY = 16
"""Of so many groups of rows one is looked at."""
_NATS = 0.0034
"""KL divergence for a unit of what other layers lose: 0.0028 and 0.0041 in two models."""
_SPREAD = 0.6
"""Of the mean square of the logits' errors, their variance under the model's own distribution.

That is 1 less the sum of the squares of its probabilities; half of the variance is the divergence.
"""


@dataclass(frozen=True, slots=True)
class Upgrade:
    """More bits for a matrix."""

    matrix: str
    weights: str
    gain: float
    """What they keep that those before lose: about so many nats of KL divergence."""
    extra: int
    """Bytes that they take more."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """Nested plans: each has the first upgrades."""

    smallest: Plan
    """That without any."""
    upgrades: tuple[Upgrade, ...]

    def plan(self, count: int) -> Plan:
        """Returns the plan with so many upgrades."""
        return {**self.smallest} | {each.matrix: each.weights for each in self.upgrades[:count]}

    def loss(self, count: int) -> float:
        """Returns what the plan with so many upgrades loses that the largest keeps."""
        return sum(each.gain for each in self.upgrades[count:])

    def with_first(self, upgrades: Sequence[Upgrade]) -> Frontier:
        """Returns a frontier whose first upgrades are these, before all others in their order."""
        others = (each for each in self.upgrades if each not in upgrades)
        return Frontier(self.smallest, (*upgrades, *others))

    def next_after(self, upgrades: Sequence[Upgrade]) -> list[Upgrade]:
        """Returns the next upgrade of each matrix after these, in their order."""
        first: dict[str, Upgrade] = {}
        for each in self.with_first(upgrades).upgrades[len(upgrades) :]:
            first.setdefault(each.matrix, each)
        return list(first.values())

    def counts(self, shares: Iterable[float]) -> list[int]:
        """Counts the upgrades at these shares of the bytes that all of them take more."""
        sizes = list(accumulate(each.extra for each in self.upgrades))
        return sorted({bisect_right(sizes, share * sizes[-1]) if sizes else 0 for share in shares})


def frontier_of(
    matrices: Mapping[str, Weight],
    precision: Precision,
    also: Collection[str] = (),
    logits: str | None = None,
) -> Frontier:
    """Orders all upgrades of the matrices [outputs, inputs] by what they keep for each byte.

    `also`: those of which another matrix of the same shape gets what they get. `logits`: the one
    whose outputs are the logits.
    """
    found = [
        each
        for name, matrix in matrices.items()
        for each in _upgrades(name, matrix, precision, 2 if name in also else 1, name == logits)
    ]
    found.sort(key=lambda each: -each.gain / each.extra)
    smallest = {name: _choices(matrix, precision)[0] for name, matrix in matrices.items()}
    return Frontier(smallest, tuple(found))


def _upgrades(
    name: str, matrix: Weight, precision: Precision, copies: int, logits: bool
) -> list[Upgrade]:
    """Returns the upgrades of one matrix, of which each keeps less for a byte than that before.

    Weights that keep less for a byte than larger ones are passed over.
    """
    choices = _choices(matrix, precision)
    if len(choices) == 1:
        return []
    sizes = [copies * _bytes(matrix, weights, precision) for weights in choices]
    losses = _losses(matrix, choices, precision, logits)
    found: list[Upgrade] = []
    place = 0
    while place + 1 < len(choices):
        larger = range(place + 1, len(choices))
        best = max(larger, key=lambda at: (losses[place] - losses[at]) / (sizes[at] - sizes[place]))
        gain, extra = losses[place] - losses[best], sizes[best] - sizes[place]
        if gain <= 0:
            break
        found.append(Upgrade(name, choices[best], gain, extra))
        place = best
    return found


def _choices(matrix: Weight, precision: Precision) -> tuple[str, ...]:
    """Returns the weights that a matrix may have: those of its file alone where these are int4."""
    if precision.algorithm == "affine" and stored_blocks(matrix, precision.block_size):
        return ("int4",)
    return precision.choices


def _bytes(matrix: Weight, weights: str, precision: Precision) -> int:
    """Counts the bytes of a matrix's tensors."""
    size, algorithm = precision.block_size, precision.algorithm_of(weights)
    tensors = quantized_tensors(matrix, BITS[weights], size, algorithm)
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _losses(
    matrix: Weight, choices: Iterable[str], precision: Precision, logits: bool
) -> list[float]:
    """Estimates what each choice of weights loses, in nats."""
    rows, importance = _sample(matrix), fitting_importance(matrix)
    if logits and importance is not None:
        scale = _SPREAD / 2 / len(rows)
    else:
        energy = _energy(rows, importance)
        scale = _NATS * (matrix.shape[0] / len(rows) / (energy or 1.0)) ** 0.5
    return [scale * _error(rows, importance, weights, precision) for weights in choices]


def _sample(matrix: Weight) -> Floats:
    """Reads every 16th group of rows."""
    starts = range(0, matrix.shape[0], _EVERY * LANES)
    source = matrix if reads_by_rows(matrix) else ArrayWeight(matrix.read())
    return np.concatenate([source.read(start, start + LANES) for start in starts])


def _error(rows: Floats, importance: Floats | None, weights: str, precision: Precision) -> float:
    size, algorithm = precision.block_size, precision.algorithm_of(weights)
    blocks = quantised(rows, BITS[weights], size, algorithm, importance)
    return _energy(blocks.weights() - rows, importance)


def _energy(rows: NDArray[np.floating[Any]], importance: Floats | None) -> float:
    """Returns the energy of what these rows of a matrix make of its inputs."""
    squares = np.square(rows, dtype=np.float64)
    return float((squares if importance is None else squares * importance).sum())
