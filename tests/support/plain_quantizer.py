"""The quantiser in its plainest form, over whole matrices: the exporter has to equal it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization.neural_compressor.weight_only import quant_tensor_k_quant_cpu

from model_export.recipe import BITS

Floats = NDArray[np.float32]
Arrays = tuple[NDArray[np.generic], ...]


def quantised(weight: Floats, algorithm: str, block_size: int) -> Arrays:
    """Values, scales and offsets in the kernels' order; no offsets where there are none."""
    fill = ((0, 0), (0, -weight.shape[1] % block_size))
    cut = np.pad(weight, fill, "edge").reshape(len(weight), -1, block_size)
    values, *scales = ALGORITHMS[algorithm](cut)
    by_row = values.reshape(len(weight), -1)[:, : weight.shape[1]].astype(np.int8).view(np.uint8)
    packed = _packed(by_row, BITS.get(algorithm, 4))
    return (packed, *(_interleaved(each) for each in scales))


def _int8(cut: Floats) -> Arrays:
    scales = (np.abs(cut).max(axis=2) / np.float32(127)).astype(np.float16)
    return np.clip(_steps(cut, scales), -127, 127), scales


def _symmetric(cut: Floats) -> Arrays:
    place = np.abs(cut).argmax(axis=2)[..., np.newaxis]
    scales = (np.take_along_axis(cut, place, 2)[..., 0] / np.float32(-8)).astype(np.float16)
    return np.clip(_steps(cut, scales) + 8, 0, 15), scales


def _affine(cut: Floats, largest: int = 15) -> Arrays:
    low, high = cut.min(axis=2), cut.max(axis=2)
    scales = ((high - low) / np.float32(largest)).astype(np.float16)
    offsets = low.astype(np.float16)
    shifted = cut - offsets.astype(np.float32)[..., np.newaxis]
    return np.clip(_steps(shifted, scales), 0, largest), scales, offsets


def _int5(cut: Floats) -> Arrays:
    return _affine(cut, 31)


def _int6(cut: Floats) -> Arrays:
    return _affine(cut, 63)


def _k_quant(cut: Floats) -> Arrays:
    rows, blocks, size = cut.shape
    with np.errstate(divide="ignore", invalid="ignore"):  # blocks of one value
        values, scales, zeros = quant_tensor_k_quant_cpu(cut.reshape(rows, -1), 4, size)
    scales, zeros = (each.astype(np.float32).reshape(rows, blocks) for each in (scales, zeros))
    offsets = (-scales * zeros).astype(np.float16)
    return values.reshape(cut.shape), scales.astype(np.float16), offsets


ALGORITHMS = {
    "int5": _int5,
    "int6": _int6,
    "int8": _int8,
    "symmetric": _symmetric,
    "affine": _affine,
    "k_quant": _k_quant,
}


def _steps(cut: Floats, scales: NDArray[np.float16]) -> Floats:
    wide = scales.astype(np.float32)[..., np.newaxis]
    steps: Floats = np.rint(cut / np.where(wide == 0, np.float32(np.inf), wide))
    return steps


def _packed(values: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    rows, columns = -(-values.shape[0] // 16) * 16, -(-values.shape[1] // 32) * 32
    padded = np.zeros((rows, columns), np.uint8)
    padded[: values.shape[0], : values.shape[1]] = values
    quads = padded.reshape(rows // 16, 16, columns // 32, 8, 4).transpose(0, 2, 3, 1, 4)
    if bits < 8:
        low, high = quads & np.uint8(15), quads >> np.uint8(4)
        planes = [low[:, :, quad] | low[:, :, quad + 4] << np.uint8(4) for quad in range(4)]
        if bits == 5:
            planes.append(_together(high, 1))
        if bits == 6:
            planes += [_together(high[:, :, :4], 2), _together(high[:, :, 4:], 2)]
        quads = np.stack(planes, axis=2)
    return np.ascontiguousarray(quads).reshape(rows // 16, columns // 32, -1)


def _together(high: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    places = np.arange(0, 8, bits, dtype=np.uint8)[:, np.newaxis, np.newaxis]
    whole: NDArray[np.uint8] = np.bitwise_or.reduce(high << places, axis=2)
    return whole


def _interleaved(figures: NDArray[np.generic]) -> NDArray[np.generic]:
    rows, blocks = figures.shape
    padded = np.zeros((-(-rows // 16) * 16, blocks), np.float16)
    padded[:rows] = figures
    return np.ascontiguousarray(padded.reshape(-1, 16, blocks).transpose(0, 2, 1))
