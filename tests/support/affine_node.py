"""One AffineMatMul or AffineGather node as a session, and what it must compute, by numpy."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model_export.quantize.block_layout import pack
from model_export.quantize.block_quantizer import Blocks
from tests.support.switchable_kernels import switchable_library

Floats = NDArray[np.float32]
Exact = NDArray[np.float64]

BLOCK = 32
"""Activations share a scale in blocks of 32, whatever the weights do."""


def multiplier(
    blocks: Blocks, bias: Floats | None = None, threads: int = 1
) -> onnxruntime.InferenceSession:
    """x -> x @ blocks.T + bias."""
    inputs = ["x", "values", "scales", "offsets", "bias"]
    return _session("AffineMatMul", TensorProto.FLOAT, inputs, blocks, bias, threads)


def gatherer(blocks: Blocks) -> onnxruntime.InferenceSession:
    """x -> the rows of blocks of that number."""
    inputs = ["x", "values", "scales", "offsets"]
    return _session("AffineGather", TensorProto.INT64, inputs, blocks, None, 1)


def run(session: onnxruntime.InferenceSession, x: NDArray[np.generic]) -> Floats:
    """The node's output."""
    y: Floats = session.run(None, {"x": x})[0]
    return y


def _session(
    op_type: str,
    input_type: int,
    inputs: list[str],
    blocks: Blocks,
    bias: Floats | None,
    threads: int,
) -> onnxruntime.InferenceSession:
    packed = pack(blocks)
    offsets = packed.offsets if packed.row_scales is None else packed.row_scales
    arrays = {"values": packed.values, "scales": packed.scales, "offsets": offsets, "bias": bias}
    constants = {name: array for name, array in arrays.items() if array is not None}
    node = helper.make_node(
        op_type,
        [name if name in {"x", *constants} else "" for name in inputs],
        ["y"],
        domain="kindling",
        K=blocks.columns,
        N=blocks.rows,
        bits=blocks.bits,
        block_size=blocks.block_size,
    )
    graph = helper.make_graph(
        [node],
        "node",
        [helper.make_tensor_value_info("x", input_type, None)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("kindling", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=9)
    return onnxruntime.InferenceSession(model.SerializeToString(), _options(threads))


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(switchable_library()))
    return options


def dequantised(blocks: Blocks) -> Exact:
    """The weights, [rows, columns]."""
    values = blocks.values.astype(np.float64)
    scales = _wide(blocks.scales, blocks)
    if blocks.row_scales is not None and blocks.offsets is not None:
        steps = values - _wide(blocks.offsets, blocks) / 2 ** (8 - blocks.bits)
        compact: Exact = steps * scales * blocks.row_scales.astype(np.float64)[:, np.newaxis] / 256
        return compact
    if blocks.offsets is not None:
        affine: Exact = values * scales + _wide(blocks.offsets, blocks)
        return affine
    return (values - (8 if blocks.bits == 4 else 0)) * scales


def _wide(figures: NDArray[np.generic], blocks: Blocks) -> Exact:
    wide: Exact = np.repeat(figures.astype(np.float64), blocks.block_size, axis=1)
    return wide[:, : blocks.columns]


def rounded(x: Floats) -> Exact:
    """The activations [rows, columns] after their rounding to int8, in blocks of 32."""
    rows, columns = x.shape
    cut = np.pad(x, ((0, 0), (0, -columns % BLOCK))).reshape(rows, -1, BLOCK)
    most = np.abs(cut).max(axis=2, keepdims=True)
    steps = np.rint(cut * (np.float32(127) / np.where(most == 0, np.float32(1), most)))
    exact: Exact = steps.astype(np.float64) * (most / np.float32(127)).astype(np.float64)
    return exact.reshape(rows, -1)[:, :columns]
