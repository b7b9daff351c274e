"""Quantises a float matrix to blocks of small integers, each weight scale * value + offset.

Scales and offsets are rounded to float16 first and the values chosen for what they then are;
k_quant alone chooses before. float16 is GGUF's own precision, so what comes from Q4_1 or Q8_0 is
found again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from model_export.quantize.importance_search import fit_zero_points, search_affine
from model_export.quantize.k_quant import search_blocks
from model_export.weights import Floats

Integer = TypeVar("Integer", np.int8, np.uint8)


@dataclass(frozen=True, slots=True)
class Blocks:
    """A matrix of `rows` outputs and `columns` inputs, each row cut into blocks.

    `values` [rows, columns]: uint8 from 0 to 2**bits - 1, or int8 from -127 to 127. `scales` and
    `offsets` float16 [rows, blocks]; 5 and 6 bits have them; without, 4 bits mean
    scale * (value - 8).

    Compact blocks have `row_scales` float16 [rows]; then `scales` uint8 are in 256ths of their
    row's, and `offsets` uint8 are zero points, of which 256 are as many steps as there are values.
    """

    values: NDArray[np.uint8] | NDArray[np.int8]
    scales: NDArray[np.float16] | NDArray[np.uint8]
    offsets: NDArray[np.float16] | NDArray[np.uint8] | None
    bits: int
    block_size: int
    row_scales: NDArray[np.float16] | None = None

    @property
    def rows(self) -> int:
        """The outputs of the linear layer, or the entries of the embedding."""
        return int(self.values.shape[0])

    @property
    def columns(self) -> int:
        """The inputs of the linear layer, or the width of the embedding."""
        return int(self.values.shape[1])

    def weights(self) -> NDArray[np.float64]:
        """Returns what the blocks stand for, [rows, columns]."""
        scales = self._by_column(self.scales)
        if self.row_scales is not None and self.offsets is not None:
            scales *= self.row_scales.astype(np.float64)[:, np.newaxis] / 256
            steps = self.values - self._by_column(self.offsets) * (2**self.bits / 256)
            weights: NDArray[np.float64] = steps * scales
            return weights
        if self.offsets is not None:
            return self.values * scales + self._by_column(self.offsets)
        return (self.values - (8.0 if self.bits == 4 else 0.0)) * scales

    def _by_column(self, figures: NDArray[Any]) -> NDArray[np.float64]:
        wide: NDArray[np.float64] = np.repeat(figures.astype(np.float64), self.block_size, axis=1)
        return wide[:, : self.columns]


def symmetric(weight: Floats, bits: int, block_size: int) -> Blocks:
    """Rounds to nearest around zero, as GGUF's Q4_0 and Q8_0 (ggml-quants.c). No offsets.

    In 4 bits the largest value becomes -8, whichever sign that gives the scale.
    """
    cut = _cut(weight, block_size)
    if bits == 8:
        low, high = _ends(cut)
        largest: Floats = np.abs(np.maximum(high, -low))
        scales = _float16(largest / np.float32(127))
        values = _nearest(cut / _divisors(scales), -127, 127, np.int8)
        return _blocks(weight, values, scales, None, 8, block_size)
    place = np.abs(cut).argmax(axis=2)[..., np.newaxis]
    largest = np.take_along_axis(cut, place, axis=2)[..., 0]
    scales = _float16(largest / np.float32(-8))
    values = _nearest(cut / _divisors(scales), -8, 7, np.int8)
    values += 8
    return _blocks(weight, values.view(np.uint8), scales, None, 4, block_size)


def affine(
    weight: Floats, block_size: int, importance: Floats | None = None, bits: int = 4
) -> Blocks:
    """Quantises from each block's smallest weight to its largest, as GGUF's Q4_1 and Q5_1.

    https://github.com/ggml-org/llama.cpp ggml-quants.c has them. With the mean squares of the
    inputs, float32 [columns], scale and offset are those by which the outputs err least.
    """
    cut = _cut(weight, block_size)
    if importance is not None:
        counts = _cut_importance(importance, block_size)
        values, *figures = search_affine(cut.reshape(-1, block_size), counts, bits)
        scales, offsets = (each.reshape(cut.shape[:2]) for each in figures)
        return _blocks(weight, values, scales, offsets, bits, block_size)
    low, high = _ends(cut)
    largest = 2**bits - 1
    scales, offsets = _float16((high - low) / np.float32(largest)), _float16(low)
    steps = cut - offsets.astype(np.float32)[..., np.newaxis]
    steps /= _divisors(scales)
    values = _nearest(steps, 0, largest, np.uint8)
    return _blocks(weight, values, scales, offsets, bits, block_size)


def compact(weight: Floats, block_size: int, importance: Floats | None, bits: int) -> Blocks:
    """Quantises to blocks with a scale and a zero point of a byte each.

    They are found as those of affine blocks; then the scale is rounded, and the rest fitted to it.
    Without the mean squares of the inputs all count alike.
    """
    cut = _cut(weight, block_size)
    rows, flat = len(cut), cut.reshape(-1, block_size)
    alike = np.ones((1, block_size), np.float32)
    counts = alike if importance is None else _cut_importance(importance, block_size)
    found = search_affine(flat, counts, bits)
    scales, offsets = found.scales.astype(np.float32), found.offsets
    _reach_zero(flat, scales, offsets, bits)
    by_row = scales.reshape(rows, -1)
    row_scales = _float16(by_row.max(axis=1) * np.float32(256 / 255))
    units = row_scales.astype(np.float32)[:, np.newaxis] / np.float32(256)
    parts = _nearest(by_row / _divisors(row_scales) * np.float32(256), 1, 255, np.uint8)
    fitted = fit_zero_points(flat, counts, (parts * units).ravel(), offsets, bits)
    zero_points = fitted.zero_points.reshape(parts.shape)
    blocks = _blocks(weight, fitted.values, parts, zero_points, bits, block_size)
    return replace(blocks, row_scales=row_scales)


def _reach_zero(cut: Floats, scales: Floats, offsets: NDArray[np.float16], bits: int) -> None:
    """Widens the range of blocks whose offset no zero point is, so that it has 0 in it."""
    most = scales * np.float32(255 * 2**bits / 256)
    beyond = np.flatnonzero((offsets > 0) | (-offsets.astype(np.float32) > most))
    low = np.minimum(cut[beyond].min(axis=1), np.float32(0))
    high = np.maximum(cut[beyond].max(axis=1), np.float32(0))
    scales[beyond] = (high - low) / np.float32(2**bits - 1)
    offsets[beyond] = _float16(low)


def k_quant(weight: Floats, block_size: int) -> Blocks:
    """Quantises to 4 bits, scale and offset by a weighted search, as llama.cpp's k-quants."""
    cut = _cut(weight, block_size)
    values, scales, zeros = search_blocks(cut.reshape(-1, block_size))
    scales, zeros = scales.reshape(cut.shape[:2]), zeros.reshape(cut.shape[:2])
    offsets = _float16(-scales * zeros)
    return _blocks(weight, values, _float16(scales), offsets, 4, block_size)


def _cut(weight: Floats, block_size: int) -> Floats:
    """Cuts rows to [rows, blocks, block_size]; the last block is filled with the last weight.

    Zeros would move the ends of a block that does not reach them.
    """
    rows, columns = weight.shape
    if columns % block_size:
        weight = np.pad(weight, ((0, 0), (0, -columns % block_size)), "edge")
    return weight.reshape(rows, -1, block_size)


def _cut_importance(importance: Floats, block_size: int) -> Floats:
    """Cuts the mean squares of a row's inputs; those that a row is filled with are 0."""
    return np.pad(importance, (0, -len(importance) % block_size)).reshape(-1, block_size)


def _ends(cut: Floats) -> tuple[Floats, Floats]:
    """Returns the smallest and the largest weight of every block.

    Of a copy whose blocks are columns: numpy compares whole rows of it, and takes a tenth of the
    time that it takes along an axis of 32. The sum makes a zero positive: which of 0 and -0 is
    the smaller depends on the CPU.
    """
    shape = cut.shape[:2]
    columns = np.ascontiguousarray(cut.reshape(-1, cut.shape[2]).T)
    low, high = columns.min(axis=0), columns.max(axis=0)
    return (low + np.float32(0)).reshape(shape), (high + np.float32(0)).reshape(shape)


def _float16(figures: Floats) -> NDArray[np.float16]:
    return figures.astype(np.float16)


def _divisors(scales: NDArray[np.float16]) -> Floats:
    """Returns what blocks are divided by: infinity where the scale is 0, in a block of 0."""
    wide = scales.astype(np.float32)[..., np.newaxis]
    wide[wide == 0] = np.inf
    return wide


def _nearest(steps: Floats, low: int, high: int, dtype: type[Integer]) -> NDArray[Integer]:
    """Rounds to the nearest integers from `low` to `high`; overwrites `steps`."""
    np.rint(steps, out=steps)
    np.clip(steps, np.float32(low), np.float32(high), out=steps)
    return steps.astype(dtype)


def _blocks(
    weight: Floats,
    values: NDArray[np.uint8] | NDArray[np.int8],
    scales: NDArray[np.float16] | NDArray[np.uint8],
    offsets: NDArray[np.float16] | NDArray[np.uint8] | None,
    bits: int,
    block_size: int,
) -> Blocks:
    rows, columns = weight.shape
    return Blocks(values.reshape(rows, -1)[:, :columns], scales, offsets, bits, block_size)
