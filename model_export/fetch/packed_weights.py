"""Reads the matrices of AWQ and GPTQ checkpoints, which hold 8 values of 4 bits in an int32.

A linear layer of `inputs` and `outputs` has in the place of its weight

    qweight  GPTQ [inputs / 8, outputs]: inputs 8n to 8n + 7, the first in the lowest bits;
             AWQ [inputs, outputs / 8]: outputs 8n to 8n + 7, in the order of _AWQ_ORDER
    qzeros   [groups, outputs / 8]: GPTQ's in plain order, AWQ's as its qweight
    scales   [groups, outputs]: floats of 16 bits
    g_idx    GPTQ [inputs]: the group of each input

(https://github.com/ModelCloud/GPTQModel and https://github.com/casper-hansen/AutoAWQ). A value is
scale * (value - zero); the first format of GPTQ stores zero - 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from model_export.fetch.checkpoint import CheckpointTensor
from model_export.fetch.packing import Packing
from model_export.grouped_weights import Bytes, Grouped, GroupedWeight
from model_export.reporting import ExportError

_AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
"""The output that each four bits hold, from the lowest."""
_ONES = np.uint32(0x11111111)
_PARTS = ("qzeros", "scales", "g_idx")


def unpacked(
    tensors: Mapping[str, CheckpointTensor], packing: Packing
) -> dict[str, CheckpointTensor | GroupedWeight]:
    """Returns a checkpoint's tensors with a weight for each packed layer, by its plain name.

    Raises ExportError for what the shapes or the order of the groups do not allow.
    """
    found: dict[str, CheckpointTensor | GroupedWeight] = {}
    layers = [name.removesuffix("qweight") for name in tensors if name.endswith(".qweight")]
    packed = {f"{layer}{part}" for layer in layers for part in ("qweight", *_PARTS)}
    for layer in layers:
        found[f"{layer}weight"] = _matrix(tensors, layer, packing)
    return found | {name: tensor for name, tensor in tensors.items() if name not in packed}


def _matrix(tensors: Mapping[str, CheckpointTensor], layer: str, packing: Packing) -> GroupedWeight:
    missing = [part for part in ("qzeros", "scales") if f"{layer}{part}" not in tensors]
    if missing:
        raise ExportError(f"{layer}qweight has no {' and no '.join(missing)} beside it.")
    weight, zeros, scales = (tensors[f"{layer}{part}"] for part in ("qweight", "qzeros", "scales"))
    by_inputs = packing.method == "gptq"
    inputs, outputs = weight.shape[0] * (8 if by_inputs else 1), scales.shape[-1]
    size = inputs if packing.group_size == -1 else packing.group_size
    expected = {
        "qweight": (inputs // 8, outputs) if by_inputs else (inputs, outputs // 8),
        "qzeros": (inputs // size, outputs // 8),
        "scales": (inputs // size, outputs),
    }
    shapes = {"qweight": weight.shape, "qzeros": zeros.shape, "scales": scales.shape}
    if shapes != expected or inputs % size or outputs % 8:
        raise ExportError(
            f"The shapes of {layer}qweight, qzeros and scales do not belong together as "
            f"{packing.method.upper()} with groups of {packing.group_size}: "
            f"{', '.join(map(str, shapes.values()))}."
        )
    if f"{layer}g_idx" in tensors:
        _check_order(tensors[f"{layer}g_idx"], layer, size)

    def stored(start: int, stop: int) -> Grouped:
        half = np.asarray(scales.read()[:, start:stop].T, np.float16)
        return Grouped(
            _gptq_rows(weight, start, stop) if by_inputs else _awq_rows(weight, start, stop),
            np.ascontiguousarray(half),
            _zeros(zeros, start, stop, packing),
        )

    return GroupedWeight((outputs, inputs), size, stored)


def _check_order(groups: CheckpointTensor, layer: str, size: int) -> None:
    order = groups.stored()
    if not np.array_equal(order, np.arange(order.size) // size):
        raise ExportError(
            f"{layer}g_idx has the inputs in another order (desc_act, act-order), which blocks of "
            f"neighbours cannot hold."
        )


def _words(tensor: CheckpointTensor) -> NDArray[np.uint32]:
    return np.asarray(tensor.stored()).view(np.uint32)


def _nibbles(words: NDArray[np.uint32]) -> Bytes:
    """Returns the eight values of each word along the last axis, from the lowest bits."""
    octets = np.ascontiguousarray(words).view(np.uint8)
    values = np.empty((*octets.shape, 2), np.uint8)
    np.bitwise_and(octets, 15, out=values[..., 0])
    np.right_shift(octets, 4, out=values[..., 1])
    return values.reshape(*words.shape[:-1], 8 * words.shape[-1])


def _gptq_rows(weight: CheckpointTensor, start: int, stop: int) -> Bytes:
    return _nibbles(_words(weight)[:, start:stop].T)


def _awq_rows(weight: CheckpointTensor, start: int, stop: int) -> Bytes:
    return _columns(_words(weight), start, stop, _AWQ_ORDER)


def _zeros(zeros: CheckpointTensor, start: int, stop: int, packing: Packing) -> Bytes:
    words = _words(zeros)
    if packing.zeros_less_one:
        words = words + _ONES
    order = _AWQ_ORDER if packing.method == "awq" else list(range(8))
    return _columns(words, start, stop, order)


def _columns(words: NDArray[np.uint32], start: int, stop: int, order: list[int]) -> Bytes:
    """Returns the columns `start` to `stop` of values that are packed along them, as rows."""
    first, last = start // 8, -(-stop // 8)
    values = _nibbles(words[:, first:last]).reshape(len(words), last - first, 8)
    plain = values[..., np.argsort(order)].reshape(len(words), 8 * (last - first))
    return np.ascontiguousarray(plain[:, start - 8 * first : stop - 8 * first].T)
