"""Searches scale and offset of 4 bit blocks by a weighted error, as llama.cpp's k-quants.

To the bit what ONNX Runtime's quant_tensor_k_quant_cpu finds
(onnxruntime/python/tools/quantization/neural_compressor/weight_only.py of 1.32.0, a port of
https://github.com/ggml-org/llama.cpp ggml-quants.c), in less than half of its time: blocks are
columns here, so that numpy works on whole rows and never along an axis of 32, and all in place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from model_export.weights import Floats

_LARGEST = 15
_STEPS = 20
_SUMS = 8
"""Sums that numpy adds up side by side along an axis, before it adds them to one another."""
_TOGETHER = 128
"""Values of a row that it adds so at most; of a longer one it adds up the halves."""


def search_blocks(blocks: Floats) -> tuple[NDArray[np.uint8], Floats, Floats]:
    """Returns values [blocks, size], scales and whole zero points [blocks] of `blocks`."""
    x = np.ascontiguousarray(blocks.T)
    with np.errstate(divide="ignore", invalid="ignore"):  # blocks of one value
        scale, zero = _search(x)
        wide = x / scale.astype(np.float64)
        wide += zero
        np.rint(wide, out=wide)
        np.clip(wide, 0, _LARGEST, out=wide)
        values = np.ascontiguousarray(wide.astype(np.uint8).T)
    return values, scale, zero.astype(np.float32)


def _search(x: Floats) -> tuple[Floats, NDArray[np.uint8]]:
    """Returns scale and zero point of every column of `x`."""
    low, high = x.min(axis=0), x.max(axis=0)
    importance = np.abs(x)
    importance += np.sqrt(_sum(x * x) / len(x))
    sum_w, sum_x = _sum(importance), _sum(importance * x)
    q, scratch = np.empty_like(x), np.empty_like(x)
    inverse = _inverse(low, high, np.float32(_LARGEST))
    scale: Floats = np.float32(1) / inverse
    _round(x, low, inverse, q)
    best = _error(x, importance, q, scale, low, scratch)
    for step in range(_STEPS):
        _round(x, low, _inverse(low, high, np.float32(-1 + 0.1 * step + _LARGEST)), q)
        weighted = importance * q
        sum_l = _sum(weighted)
        sum_l2 = _sum(np.multiply(weighted, q, out=scratch))
        sum_xl = _sum(np.multiply(weighted, x, out=scratch))
        determinant = sum_w * sum_l2 - sum_l**2
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        new_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        error = _error(x, importance, q, new_scale, new_low, scratch)
        better = error < best
        for kept, found in ((best, error), (scale, new_scale), (low, new_low)):
            np.copyto(kept, found, where=better)
    return scale, np.clip(np.rint(-low / scale), 0, _LARGEST).astype(np.uint8)


def _inverse(low: Floats, high: Floats, steps: np.float32) -> Floats:
    inverse: Floats = np.where(low != high, steps / (high - low), np.float32(1))
    return inverse


def _round(x: Floats, low: Floats, inverse: Floats, out: Floats) -> None:
    np.subtract(x, low, out=out)
    np.multiply(out, inverse, out=out)
    np.rint(out, out=out)
    np.clip(out, 0, _LARGEST, out=out)


def _error(
    x: Floats, importance: Floats, q: Floats, scale: Floats, low: Floats, scratch: Floats
) -> Floats:
    np.multiply(q, scale, out=scratch)
    scratch += low
    scratch -= x
    scratch *= scratch
    scratch *= importance
    return _sum(scratch)


def _sum(x: Floats) -> Floats:
    """Adds up every column, in the order of numpy's sum along a row of so many."""
    if len(x) > _TOGETHER:
        half = len(x) // 2
        return _sum(x[:half]) + _sum(x[half:])
    sums = x[:_SUMS].copy()
    for row in range(_SUMS, len(x), _SUMS):
        sums += x[row : row + _SUMS]
    pairs = sums[0::2] + sums[1::2]
    total: Floats = (pairs[0] + pairs[1]) + (pairs[2] + pairs[3])
    return total
