"""Orders what may have more bits than compact4 by what that keeps, for plans of weights = "auto".

What a layer's outputs lose is the squared error of its weights, each times the mean square of its
input. It is estimated on some of the rows, as a share of the outputs' own energy: how large these
are says nothing, since a norm may follow. What the output projection loses is known in nats, as its
outputs are the logits. A matrix gets more bits first where each byte that they take keeps the most
(docs/precision.md).
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_export.quantize.block_layout import LANES
from model_export.quantize.quantized_tensors import fitting_importance, quantised, quantized_tensors
from model_export.quantize.stored_blocks import stored_blocks
from model_export.recipe import BITS, Precision
from model_export.weights import ArrayWeight, Floats, Weight, reads_by_rows, size_of

Plan = Mapping[str, str]
"""The weights of each matrix, by its name in the graph: one of BITS."""
_EVERY = 16
"""Of so many groups of rows one is looked at."""
_NATS = 16.0
"""KL divergence if all layers lost a unit of their outputs' energy: 16.3 and 16.1 in two models.

A matrix has as much of it as the root of its size is of all roots together.
"""
_SPREAD = 0.6
"""Of the mean square of the logits' errors, their variance under the model's own distribution.

That is 1 less the sum of the squares of its probabilities; half of the variance is the divergence.
"""
_LOGITS = 150.0
"""The mean square of a logit where a scale or a cap makes it: 227 and 76 in two models without."""


@dataclass(frozen=True, slots=True)
class OutputProjection:
    """The matrix whose outputs become the logits."""

    matrix: str
    is_untied: bool = False
    """Whether an embedding of the same shape beside it gets the same weights."""
    is_scaled: bool = False
    """Whether its outputs are scaled or capped before they are the logits."""


@dataclass(frozen=True, slots=True)
class MatrixCosts:
    """The bytes and the loss of each kind of weights that a matrix may have, the smallest first."""

    weights: tuple[str, ...]
    sizes: tuple[int, ...]
    """Bytes."""
    losses: tuple[float, ...]
    """About so many nats of KL divergence."""


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
    costs: Mapping[str, MatrixCosts] = field(default_factory=dict, repr=False)
    """By matrix."""

    def plan(self, count: int) -> Plan:
        """Returns the plan with so many upgrades."""
        return {**self.smallest} | {each.matrix: each.weights for each in self.upgrades[:count]}

    def loss(self, count: int) -> float:
        """Returns what the plan with so many upgrades loses that the largest keeps."""
        return sum(each.gain for each in self.upgrades[count:])

    def with_first(self, upgrades: Sequence[Upgrade]) -> Frontier:
        """Returns a frontier whose first upgrades are these, before all others in their order."""
        others = (each for each in self.upgrades if each not in upgrades)
        return replace(self, upgrades=(*upgrades, *others))

    def above(self, weights: str) -> Frontier:
        """Returns the frontier whose smallest plan has these weights in every matrix.

        A matrix that has no choice stays as it is.
        """
        return _frontier(self.costs, weights)

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
    matrices: Mapping[str, Weight], precision: Precision, head: OutputProjection | None = None
) -> Frontier:
    """Orders all upgrades of the matrices [outputs, inputs] by what they keep for each byte.

    `head`: which of them makes the logits.
    """
    roots = {name: math.sqrt(size_of(matrix)) for name, matrix in matrices.items()}
    of_layers = sum(root for name, root in roots.items() if head is None or name != head.matrix)
    costs: dict[str, MatrixCosts] = {}
    for name, matrix in matrices.items():
        share = roots[name] / (of_layers or math.inf)
        costs[name] = _costs(
            matrix, precision, share, head if head and name == head.matrix else None
        )
    return _frontier(costs)


def _frontier(costs: Mapping[str, MatrixCosts], lowest: str | None = None) -> Frontier:
    """Returns the frontier above the smallest weights of each matrix, or above `lowest`."""
    starts = {
        name: each.weights.index(lowest) if lowest in each.weights else 0
        for name, each in costs.items()
    }
    found = [
        upgrade for name, each in costs.items() for upgrade in _upgrades(name, each, starts[name])
    ]
    found.sort(key=lambda each: -each.gain / each.extra)
    smallest = {name: costs[name].weights[start] for name, start in starts.items()}
    return Frontier(smallest, tuple(found), costs)


def _upgrades(name: str, costs: MatrixCosts, place: int) -> Iterator[Upgrade]:
    """Yields the upgrades of one matrix, of which each keeps less for a byte than that before.

    Weights that keep less for a byte than larger ones are passed over.
    """
    sizes, losses = costs.sizes, costs.losses
    while place + 1 < len(sizes):
        larger = range(place + 1, len(sizes))
        best = max(larger, key=lambda at: (losses[place] - losses[at]) / (sizes[at] - sizes[place]))
        gain, extra = losses[place] - losses[best], sizes[best] - sizes[place]
        if gain <= 0:
            return
        yield Upgrade(name, costs.weights[best], gain, extra)
        place = best


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


def _costs(
    matrix: Weight, precision: Precision, share: float, head: OutputProjection | None
) -> MatrixCosts:
    """Estimates what each choice of weights takes and loses.

    `share`: the matrix's of all that layers lose. An embedding like the output projection counts
    as a layer of that size; its inputs are all alike.
    """
    choices = _choices(matrix, precision)
    copies = 2 if head is not None and head.is_untied else 1
    sizes = tuple(copies * _bytes(matrix, weights, precision) for weights in choices)
    if len(choices) == 1:
        return MatrixCosts(choices, sizes, (0.0,))
    rows, importance = _sample(matrix), fitting_importance(matrix)
    energy = _energy(rows, importance) or 1.0
    scale = _NATS * share / energy
    of_embedding = 0.0
    if head is not None:
        is_known = importance is not None and not head.is_scaled
        square = energy / len(rows) if is_known else _LOGITS
        scale = _SPREAD / 2 * square / energy
        of_embedding = _NATS * share / (_energy(rows, None) or 1.0)
    losses: list[float] = []
    for weights in choices:
        errors = _errors(rows, importance, weights, precision)
        loss = scale * _energy(errors, importance)
        losses.append(loss + of_embedding * _energy(errors, None))
    return MatrixCosts(choices, sizes, tuple(losses))


def _sample(matrix: Weight) -> Floats:
    """Reads every 16th group of rows."""
    starts = range(0, matrix.shape[0], _EVERY * LANES)
    source = matrix if reads_by_rows(matrix) else ArrayWeight(matrix.read())
    return np.concatenate([source.read(start, start + LANES) for start in starts])


def _errors(
    rows: Floats, importance: Floats | None, weights: str, precision: Precision
) -> NDArray[np.floating[Any]]:
    size, algorithm = precision.block_size, precision.algorithm_of(weights)
    blocks = quantised(rows, BITS[weights], size, algorithm, importance)
    return blocks.weights() - rows


def _energy(rows: NDArray[np.floating[Any]], importance: Floats | None) -> float:
    """Returns the energy of what these rows of a matrix make of its inputs."""
    squares = np.square(rows, dtype=np.float64)
    return float((squares if importance is None else squares * importance).sum())
