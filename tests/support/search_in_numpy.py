"""The search of search_affine.c in numpy, step for step, whose bits it must find.

Blocks are columns here, so that numpy works on whole rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_export.quantize.importance_search import Fitted, Found, _shares, _sum
from model_export.weights import Floats

TINY = np.float32(1e-6)
EXACT = np.float32(1e-6)
CUTS = (
    (0.01, 0.01),
    (-0.02, 0.03),
    (0.03, -0.01),
    (0.0, -0.06),
    (0.0, 0.02),
    (0.02, 0.0),
    (-0.06, -0.06),
    (-0.06, -0.01),
)


def search_in_numpy(cut: Floats, importance: Floats, bits: int = 4) -> Found:
    """Finds what `search_affine` finds."""
    counts = _shares(importance)[:, np.arange(len(cut)) % len(importance)]
    x, largest = np.ascontiguousarray(cut.T), np.float32(2**bits - 1)
    values, scales, offsets = _searched(x, np.ascontiguousarray(counts), largest)
    return Found(np.ascontiguousarray(values.T, np.uint8), scales, offsets)


def fit_in_numpy(
    cut: Floats, importance: Floats, scales: Floats, offsets: NDArray[np.float16], bits: int
) -> Fitted:
    """Finds what `fit_zero_points` finds."""
    counts = _shares(importance)[:, np.arange(len(cut)) % len(importance)]
    x, largest = np.ascontiguousarray(cut.T), np.float32(2**bits - 1)
    counts, q, offset = np.ascontiguousarray(counts), np.empty_like(x), offsets.astype(np.float32)
    for _ in range(2):
        _round(x, scales, offset, largest, q)
        offset = _sum(counts * x) - scales * _sum(counts * q)
    units = scales * np.float32(2**bits / 256)
    zeros = np.clip(np.rint(-offset / _divisors(units)), np.float32(0), np.float32(255))
    _round(x, scales, -(zeros * units), largest, q)
    return Fitted(np.ascontiguousarray(q.T, np.uint8), zeros.astype(np.uint8))


def _searched(
    x: Floats, shares: Floats, largest: np.float32
) -> tuple[Floats, NDArray[np.float16], NDArray[np.float16]]:
    """Returns values, scales and offsets of the columns of `x`."""
    low = x.min(axis=0) + np.float32(0)  # which of 0 and -0 is the smaller depends on the CPU
    ranges = (x.max(axis=0) + np.float32(0)) - low
    fractions = x - low
    fractions /= _divisors(ranges)
    fit = _Fit(fractions, shares)
    as_many = 15 / float(largest)
    for below, above in ((below * as_many, above * as_many) for below, above in CUTS):
        steps = largest / np.float32(1 - below - above)
        np.multiply(fractions, steps, out=fit.q)
        fit.q -= np.float32(below) * steps
        np.rint(fit.q, out=fit.q)
        fit.improve()
    _round(fractions, fit.scale, fit.offset(), largest, fit.q)
    fit.improve()
    scales = (fit.scale * ranges).astype(np.float16)
    offsets = (fit.offset() * ranges + low).astype(np.float16)
    step = np.float32(15) / largest
    near = np.flatnonzero(fit.left() < EXACT * step * step)
    if near.size:
        plain = (ranges[near] / largest).astype(np.float16), low[near].astype(np.float16)
        part, counts = x[:, near], shares[:, near]
        found = _error(part, counts, scales[near], offsets[near], largest)
        better = near[_error(part, counts, *plain, largest) <= found]
        scales[better] = (ranges[better] / largest).astype(np.float16)
        offsets[better] = low[better].astype(np.float16)
    _round(x, scales.astype(np.float32), offsets.astype(np.float32), largest, fit.q)
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
        scale = covariance / np.maximum(variance, TINY)
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
    x: Floats,
    shares: Floats,
    scales: NDArray[np.float16],
    offsets: NDArray[np.float16],
    largest: np.float32,
) -> Floats:
    """Returns the weighted error of blocks with these scales and offsets."""
    scale, offset = scales.astype(np.float32), offsets.astype(np.float32)
    q = np.empty_like(x)
    _round(x, scale, offset, largest, q)
    q *= scale
    q += offset
    q -= x
    q *= q
    q *= shares
    return _sum(q)


def _round(x: Floats, scale: Floats, offset: Floats, largest: np.float32, out: Floats) -> None:
    """Finds the values of `x` that are nearest."""
    np.subtract(x, offset, out=out)
    out /= _divisors(scale)
    np.rint(out, out=out)
    np.clip(out, np.float32(0), largest, out=out)


def _divisors(figures: Floats) -> Floats:
    """Returns what to divide by: infinity in the place of 0, for a block of one value."""
    return np.where(figures == 0, np.float32(np.inf), figures)
