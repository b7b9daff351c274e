"""Orders matrices by what int4 loses and int8 keeps, for plans of weights = "auto".

What a layer's outputs lose is the squared error of its weights, each times the mean square of its
input. It is estimated on some of the rows. int8 goes first where most of it is lost for each byte
that int8 takes more. Over the energy of the outputs it foretells less (docs/precision.md).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate

import numpy as np

from model_export.quantize.block_layout import LANES
from model_export.quantize.quantized_tensors import fitting_importance, quantised, quantized_tensors
from model_export.quantize.stored_blocks import stored_blocks
from model_export.recipe import BITS, Precision
from model_export.weights import ArrayWeight, Floats, Weight, reads_by_rows

Plan = Mapping[str, str]
"""int4 or int8 for each matrix, by its name in the graph."""
_EVERY = 16
"""Of so many groups of rows one is looked at."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A matrix that is int4 or int8."""

    name: str
    loss: float
    """The energy of its outputs that int4 loses and int8 keeps."""
    extra: int
    """Bytes that int8 takes more."""


@dataclass(frozen=True, slots=True)
class Frontier:
    """Nested plans from all int4 to all int8: each has the first candidates in int8."""

    candidates: tuple[Candidate, ...]

    def plan(self, count: int) -> Plan:
        """Returns the plan with so many matrices in int8."""
        return {
            each.name: "int8" if place < count else "int4"
            for place, each in enumerate(self.candidates)
        }

    def counts(self, shares: Iterable[float]) -> list[int]:
        """Counts the matrices in int8 at these shares of the bytes that int8 takes more."""
        sizes = list(accumulate(each.extra for each in self.candidates))
        return sorted({bisect_right(sizes, share * sizes[-1]) if sizes else 0 for share in shares})


def frontier_of(matrices: Mapping[str, Weight], precision: Precision) -> Frontier:
    """Orders the matrices [outputs, inputs] by what they lose for each byte, the most first."""
    found = [_candidate(name, matrix, precision) for name, matrix in matrices.items()]
    return Frontier(tuple(sorted(found, key=lambda each: -each.loss / each.extra)))


def _candidate(name: str, matrix: Weight, precision: Precision) -> Candidate:
    extra = _bytes(matrix, "int8", precision) - _bytes(matrix, "int4", precision)
    return Candidate(name, _loss(matrix, precision), extra)


def _bytes(matrix: Weight, weights: str, precision: Precision) -> int:
    """Counts the bytes of a matrix's tensors."""
    size, algorithm = precision.block_size, precision.algorithm
    tensors = quantized_tensors(matrix, BITS[weights], size, algorithm)
    return sum(tensor.nbytes for tensor in tensors if tensor is not None)


def _loss(matrix: Weight, precision: Precision) -> float:
    """Estimates what int4 loses and int8 keeps, of the energy of the matrix's outputs."""
    if precision.algorithm == "affine" and stored_blocks(matrix, precision.block_size):
        return 0.0  # int4 is what its file has
    rows, importance = _sample(matrix), fitting_importance(matrix)
    int4, int8 = (_error(rows, importance, bits, precision) for bits in (4, 8))
    return max(int4 - int8, 0.0) * matrix.shape[0] / len(rows)


def _sample(matrix: Weight) -> Floats:
    """Reads every 16th group of rows."""
    starts = range(0, matrix.shape[0], _EVERY * LANES)
    source = matrix if reads_by_rows(matrix) else ArrayWeight(matrix.read())
    return np.concatenate([source.read(start, start + LANES) for start in starts])


def _error(rows: Floats, importance: Floats | None, bits: int, precision: Precision) -> float:
    blocks = quantised(rows, bits, precision.block_size, precision.algorithm, importance)
    lost = (blocks.weights() - rows) ** 2
    return float((lost if importance is None else lost * importance).sum())
