"""Weights become blocks of small integers.

The linear layers become MatMulNBits, the embedding GatherBlockQuantized. A tied embedding and
output projection are one quantised matrix: both nodes read the same bytes. Runs on the fused
graph, where every linear layer has one of two forms (fuse/linears.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from model_export.block_offsets import BlockOffsets
from model_export.block_quantizer import Blocks, affine, k_quant, round_to_nearest
from model_export.fuse.graphs import (
    MICROSOFT,
    add_initializer,
    attribute,
    constant,
    insert,
    only_user,
    rename,
    replace,
    tidy,
)
from model_export.precision import BITS, Precision

__all__ = ["Precision", "quantize"]


def quantize(model: ir.Model, precision: Precision) -> ir.Model:
    """Quantise `model`, in place, and return it. "fp32" leaves it as it is."""
    if precision.weights == "fp32":
        return model
    linears = [node for node in model.graph if _weight_of(node) is not None]
    plan = _plan(model, linears, precision)
    quantizer, offsets = _Quantizer(model, precision), BlockOffsets(model)
    for node, weights in plan.items():
        if weights != "fp32":
            _replace_linear(model, node, quantizer.blocks(node, weights), precision, offsets)
    if precision.head != "fp32":
        for node in list(model.graph):
            if _is_embedding(node, precision.block_size):
                _replace_embedding(model, node, quantizer.embedding(node, precision.head))
    tidy(model)
    model.graph.opset_imports[MICROSOFT] = 1
    return model


def _weight_of(node: ir.Node) -> ir.Value | None:
    """The constant matrix of a linear layer, None for any other node."""
    if node.op_type not in ("MatMul", "Gemm") or not _is_matrix(node.inputs[1]):
        return None
    return node.inputs[1]


def _is_matrix(value: ir.Value | None) -> bool:
    tensor = value.const_value if value is not None else None
    return tensor is not None and len(tensor.shape) == 2 and tensor.dtype == ir.DataType.FLOAT


def _is_embedding(node: ir.Node, block_size: int) -> bool:
    """Gather of a table whose rows are whole blocks: GatherBlockQuantized returns no others."""
    if node.op_type != "Gather" or not _is_matrix(node.inputs[0]):
        return False
    return int(node.inputs[0].shape[1]) % block_size == 0  # type: ignore[union-attr,index,arg-type]


def _plan(model: ir.Model, linears: list[ir.Node], precision: Precision) -> dict[ir.Node, str]:
    """The weights of each linear layer: the last one is the output projection."""
    plan = dict.fromkeys(linears, precision.weights)
    if precision.mixed_layers:
        plan.update(dict.fromkeys(_sensitive(model, linears), "int8"))
    plan[linears[-1]] = precision.head
    return plan


def _sensitive(model: ir.Model, linears: list[ir.Node]) -> list[ir.Node]:
    """The attention input and the down projection of the layers that llama.cpp gives more bits.

    The first and the last eighth, and every third between them: use_more_bits in
    https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp.
    """
    order = {node: number for number, node in enumerate(model.graph)}
    attention = [order[n] for n in model.graph if n.op_type == "GroupQueryAttention"]
    layers = len(attention)
    chosen: list[ir.Node] = []
    for layer, place in enumerate(attention):
        eighth = layers / 8
        if layer < eighth or layer >= 7 * eighth or (layer - round(eighth)) % 3 == 2:
            after = attention[layer + 1] if layer + 1 < layers else len(order)
            before = [node for node in linears if order[node] < place]
            inside = [node for node in linears if place < order[node] < after]
            inputs = _inputs_of(before)
            last = inside[-1] if layer + 1 == layers else None
            down = inside[:-1] if last is not None else _without_inputs(inside)
            chosen += [*inputs, *down[-1:]]
    return chosen


def _inputs_of(before: list[ir.Node]) -> list[ir.Node]:
    """The attention's input projections: the last linear layers before it that share a source."""
    return [node for node in before if node.inputs[0] is before[-1].inputs[0]]


def _without_inputs(inside: list[ir.Node]) -> list[ir.Node]:
    """The layer's own linears, without the next layer's attention input."""
    return [node for node in inside if node.inputs[0] is not inside[-1].inputs[0]]


@dataclass(slots=True)
class _Quantizer:
    """Quantises each matrix once, however many nodes read it."""

    model: ir.Model
    precision: Precision
    done: dict[tuple[str, str], Blocks] = field(default_factory=dict)

    def blocks(self, node: ir.Node, weights: str) -> Blocks:
        """The weight of a linear layer, [outputs, inputs]."""
        value = _weight_of(node)
        turned = node.op_type == "Gemm" and attribute(node, "transB", 0) == 1
        return self._quantise(value, weights, turned=not turned)

    def embedding(self, node: ir.Node, weights: str) -> Blocks:
        """The table of an embedding, [entries, hidden]."""
        return self._quantise(node.inputs[0], weights, turned=False)

    def _quantise(self, value: ir.Value | None, weights: str, turned: bool) -> Blocks:
        key = (str(value.name) if value is not None else "", weights)
        if key not in self.done:
            array = constant(value)
            matrix = np.asarray(array.T if turned else array, np.float32)  # type: ignore[union-attr]
            self.done[key] = self._algorithm(matrix, BITS[weights])
        return self.done[key]

    def _algorithm(self, matrix: NDArray[np.float32], bits: int) -> Blocks:
        size, algorithm = self.precision.block_size, self.precision.algorithm
        if algorithm == "k_quant":
            return k_quant(matrix, bits, size)
        if algorithm == "affine" and bits == 4 and matrix.shape[1] % size == 0:
            return affine(matrix, size)
        symmetric = self.precision.symmetric or algorithm == "affine"
        return round_to_nearest(matrix, bits, size, symmetric)


def _replace_linear(
    model: ir.Model, node: ir.Node, blocks: Blocks, precision: Precision, offsets: BlockOffsets
) -> None:
    name = _weight_of(node).name  # type: ignore[union-attr]
    result, bias = _result_and_bias(node)
    inputs = [
        node.inputs[0],
        add_initializer(model, f"{name}.packed", blocks.packed),
        add_initializer(model, f"{name}.scales", blocks.scales),
    ]
    if blocks.zero_points is not None:
        inputs.append(add_initializer(model, f"{name}.zero_points", blocks.zero_points))
    if bias is not None:
        inputs += [None] * (5 - len(inputs)) + [bias]
    attributes = {
        "K": blocks.columns,
        "N": blocks.rows,
        "bits": blocks.bits,
        "block_size": blocks.block_size,
        "accuracy_level": precision.accuracy_level,
    }
    before, x = result.producer() or node, node.inputs[0]
    product = insert(before, "MatMulNBits", inputs, attributes, MICROSOFT, like=[result]).outputs[0]
    if blocks.offsets is not None and x is not None:
        product = offsets.add(before, x, product, blocks.offsets, blocks.block_size)
    rename(product, result)


def _result_and_bias(node: ir.Node) -> tuple[ir.Value, ir.Value | None]:
    """What the layer gives out, and its bias where an Add of one follows alone."""
    product = node.outputs[0]
    total = only_user(product)
    if total is None or total.op_type != "Add":
        return product, None
    bias = next(value for value in total.inputs if value is not product)
    array = constant(bias)
    return (total.outputs[0], bias) if array is not None and array.ndim == 1 else (product, None)


def _replace_embedding(model: ir.Model, node: ir.Node, blocks: Blocks) -> None:
    name = node.inputs[0].name  # type: ignore[union-attr]
    flat = blocks.packed.reshape(blocks.rows, -1)  # a view: save() writes shared bytes once
    inputs = [
        add_initializer(model, f"{name}.table", flat),
        node.inputs[1],
        add_initializer(model, f"{name}.table_scales", blocks.scales),
    ]
    if blocks.zero_points is not None:
        inputs.append(add_initializer(model, f"{name}.table_zero_points", blocks.zero_points))
    attributes = {
        "bits": blocks.bits,
        "block_size": blocks.block_size,
        "gather_axis": 0,
        "quantize_axis": 1,
    }
    gather = insert(
        node, "GatherBlockQuantized", inputs, attributes, MICROSOFT, like=[node.outputs[0]]
    )
    replace(node.outputs[0], gather.outputs[0])
