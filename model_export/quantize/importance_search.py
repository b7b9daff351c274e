"""Searches scale and offset of 4 bit blocks by the error that a layer's outputs will have.

A weight's error counts by the mean square of the input that it is multiplied with. Blocks are
columns here, so that numpy works on whole rows, in place and a cache's worth at a time; sums are
added in a fixed order, so that a block has the same bits whichever blocks lie beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_export.weights import Floats

_LARGEST = np.float32(15)
_TINY = np.float32(1e-6)
_BATCH = 1024
"""Blocks that are searched together: eight arrays of them take 1 MB."""
_CUTS = (
    (0.01, 0.01),
    (-0.02, 0.03),
    (0.03, -0.01),
    (0.0, -0.06),
    (0.0, 0.02),
    (0.02, 0.0),
    (-0.06, -0.06),
    (-0.06, -0.01),
)
"""Parts that are cut off a block's range below and above before its values are rounded.

Out of a grid of 100 that cut off less than half a step, so that nothing is rounded out of the
range: each adds the most to those before it. They leave 0.5 % more error than the best of all 100.
"""
_LEAST = np.float32(0.01)
"""The least that an input counts, as a part of its block's mean: unseen ones are not free."""
_EXACT = np.float32(1e-6)
"""The mean square, in ranges, below which a block may lie on a grid: some hundredths of a step."""


class Found(NamedTuple):
    """Blocks of values from 0 to 15, [blocks, size], each weight scale * value + offset."""

    values: NDArray[np.uint8]
    scales: NDArray[np.float16]
    offsets: NDArray[np.float16]


def search_affine(cut: Floats, importance: Floats) -> Found:
    """Quantises the blocks `cut` [blocks, size] with the least weighted error that is found.

    `importance` [blocks of a row, size], or [1, size], serves every row anew. A block whose weights
    are 16 steps from its smallest to its largest, as those of a Q4_1 file, stays exactly as it is.
    """
    count, size = cut.shape
    shares = np.tile(_shares(importance), (1, -(-_BATCH // len(importance)) + 1))
    found = Found(
        np.empty((count, size), np.uint8), np.empty(count, np.float16), np.empty(count, np.float16)
    )
    for start in range(0, count, _BATCH):
        batch = slice(start, min(start + _BATCH, count))
        first, blocks = start % len(importance), batch.stop - start
        x = np.ascontiguousarray(cut[batch].T)
        counts = np.ascontiguousarray(shares[:, first : first + blocks])
        values, found.scales[batch], found.offsets[batch] = _searched(x, counts)
        found.values[batch] = values.T
    return found


def _shares(importance: Floats) -> Floats:
    """Returns how much each input of a block counts, [size, blocks]; a block's sum is 1."""
    shares = np.array(importance.T, np.float32, order="C")  # a copy
    mean = _sum(shares) / np.float32(len(shares))
    mean[mean == 0] = 1
    shares /= mean
    shares += _LEAST
    shares /= _sum(shares)
    return shares


def _searched(x: Floats, shares: Floats) -> tuple[Floats, NDArray[np.float16], NDArray[np.float16]]:
    """Returns values, scales and offsets of the columns of `x`."""
    low = x.min(axis=0) + np.float32(0)  # which of 0 and -0 is the smaller depends on the CPU
    ranges = (x.max(axis=0) + np.float32(0)) - low
    fractions = x - low
    fractions /= _divisors(ranges)
    fit = _Fit(fractions, shares)
    for below, above in _CUTS:
        steps = _LARGEST / np.float32(1 - below - above)
        np.multiply(fractions, steps, out=fit.q)
        fit.q -= np.float32(below) * steps
        np.rint(fit.q, out=fit.q)
        fit.improve()
    _round(fractions, fit.scale, fit.offset(), fit.q)
    fit.improve()
    scales = (fit.scale * ranges).astype(np.float16)
    offsets = (fit.offset() * ranges + low).astype(np.float16)
    near = np.flatnonzero(fit.left() < _EXACT)
    if near.size:
        plain = (ranges[near] / _LARGEST).astype(np.float16), low[near].astype(np.float16)
        part, counts = x[:, near], shares[:, near]
        found = _error(part, counts, scales[near], offsets[near])
        better = near[_error(part, counts, *plain) <= found]
        scales[better] = (ranges[better] / _LARGEST).astype(np.float16)
        offsets[better] = low[better].astype(np.float16)
    _round(x, scales.astype(np.float32), offsets.astype(np.float32), fit.q)
    return fit.q, scales, offsets


class _Fit:
    """The least squares of scale and offset for values `q`, and the best of them so far."""

    def __init__(self, x: Floats, shares: Floats) -> None:
        self.shares = shares
        self.q, self.product = np.empty_like(x), shares * x
        self.mean = _sum(self.product)
        np.subtract(x, self.mean, out=self.q)
        self.weighted = shares * self.q
        self.variance = _sum(np.multiply(self.weighted, self.q, out=self.product))
        self.explained, self.scale, self.mean_q = np.zeros((3, x.shape[1]), np.float32)

    def improve(self) -> None:
        """Keeps the fit of `q` where it is better than those before."""
        q, product = self.q, self.product
        mean = _sum(np.multiply(self.shares, q, out=product))
        variance = _sum(np.multiply(product, q, out=product)) - mean * mean
        covariance = _sum(np.multiply(self.weighted, q, out=product))
        scale = covariance / np.maximum(variance, _TINY)
        explained = scale * covariance
        better = explained > self.explained
        np.copyto(self.explained, explained, where=better)
        np.copyto(self.scale, scale, where=better)
        np.copyto(self.mean_q, mean, where=better)

    def offset(self) -> Floats:
        """Returns the offset that belongs to the scale."""
        return self.mean - self.scale * self.mean_q

    def left(self) -> Floats:
        """Returns the mean square of what the best fit does not explain."""
        return self.variance - self.explained


def _error(
    x: Floats, shares: Floats, scales: NDArray[np.float16], offsets: NDArray[np.float16]
) -> Floats:
    """Returns the weighted error of blocks with these scales and offsets."""
    scale, offset = scales.astype(np.float32), offsets.astype(np.float32)
    q = np.empty_like(x)
    _round(x, scale, offset, q)
    q *= scale
    q += offset
    q -= x
    q *= q
    q *= shares
    return _sum(q)


def _round(x: Floats, scale: Floats, offset: Floats, out: Floats) -> None:
    """Finds the values of `x` that are nearest."""
    np.subtract(x, offset, out=out)
    out /= _divisors(scale)
    np.rint(out, out=out)
    np.clip(out, np.float32(0), _LARGEST, out=out)


def _divisors(figures: Floats) -> Floats:
    """Returns what to divide by: infinity in the place of 0, for a block of one value."""
    return np.where(figures == 0, np.float32(np.inf), figures)


def _sum(columns: Floats) -> Floats:
    """Adds up every column, one row after the other."""
    count = columns.shape[1]
    if count == 1:  # numpy would add up a single one by parts
        columns = np.repeat(columns, 2, axis=1)
    total: Floats = np.add.reduce(columns, axis=0)
    return total[:count]
