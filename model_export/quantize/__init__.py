"""Replaces float weights by blocks of small integers.

The linear layers become AffineMatMul, the embeddings AffineGather: operators of our own
(docs/kernels.md), which multiply with the weights as they lie in the file. A tied embedding and
output projection are one quantised matrix: both nodes read the same initialisers. Runs on the fused
graph, where every linear layer has one of two forms (fuse/linears.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import onnx_ir as ir

from handlers.artifact import graph_contract as contract
from model_export.fuse.graphs import (
    KINDLING,
    add_tensor,
    attribute,
    constant_rank,
    insert,
    only_user,
    rename,
    replace,
    tidy,
    weight_of,
)
from model_export.quantize.plan import OutputProjection, Plan
from model_export.quantize.quantized_tensors import quantized_tensors
from model_export.recipe import BITS, COMPACT, Precision
from model_export.weights import Weight, transposed


def quantize(model: ir.Model, precision: Precision, plan: Plan | None = None) -> ir.Model:
    """Quantises `model`, in place, and returns it. "fp32" leaves it as it is.

    "auto" takes a plan of all `matrices_of` the model. The blocks themselves are computed when they
    are written.
    """
    if precision.weights == "fp32":
        return model
    linears = _linears(model)
    plan_of_nodes = _plan(model, linears, precision, plan or {})
    quantizer = _Quantizer(model, precision)
    for node, weights in plan_of_nodes.items():
        if weights != "fp32":
            _replace_linear(node, quantizer.linear(node, weights))
    head = plan_of_nodes[linears[-1]]
    if head != "fp32":
        for node in [node for node in model.graph if _is_embedding(node)]:
            _replace_embedding(node, quantizer.embedding(node, head))
    _halve_cache(model)
    tidy(model)
    model.graph.opset_imports[KINDLING] = 1
    return model


def matrices_of(model: ir.Model, precision: Precision) -> dict[str, Weight]:
    """Returns the matrices [outputs, inputs] that a plan is for, by their names in the graph.

    They are those of the linear layers, without the output projection where `precision` has
    weights of its own for that.
    """
    *others, head = _linears(model)
    planned = [node for node in others if node.inputs[1] is not head.inputs[1]]
    if not precision.lm_head:
        planned.append(head)
    return {_name_of(node): _matrix_of(node.inputs[1], _is_turned(node)) for node in planned}


def output_projection(model: ir.Model) -> OutputProjection:
    """Describes the output projection, whose matrix a plan is for unless it has its own weights."""
    head = _linears(model)[-1]
    tables = {node.inputs[0] for node in model.graph if _is_embedding(node)}
    return OutputProjection(
        _name_of(head),
        is_untied=bool(tables - {head.inputs[1]}),
        is_scaled=head.outputs[0] not in model.graph.outputs,
    )


def _linears(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if _weight_of(node) is not None]


def _name_of(node: ir.Node) -> str:
    """Returns the name of a linear layer's matrix."""
    return str(cast("ir.Value", node.inputs[1]).name)


def _is_turned(node: ir.Node) -> bool:
    """Tells whether a linear layer's matrix lies as [inputs, outputs]."""
    return node.op_type != "Gemm" or attribute(node, "transB", 0) != 1


def _matrix_of(value: ir.Value | None, transpose: bool) -> Weight:
    weight = cast("Weight", weight_of(value))
    return transposed(weight) if transpose else weight


def _weight_of(node: ir.Node) -> ir.Value | None:
    """Returns the constant matrix of a linear layer, None for any other node."""
    if node.op_type not in ("MatMul", "Gemm") or not _is_matrix(node.inputs[1]):
        return None
    return node.inputs[1]


def _is_matrix(value: ir.Value | None) -> bool:
    tensor = value.const_value if value is not None else None
    return tensor is not None and len(tensor.shape) == 2 and tensor.dtype == ir.DataType.FLOAT


def _is_embedding(node: ir.Node) -> bool:
    return node.op_type == "Gather" and _is_matrix(node.inputs[0])


def _plan(
    model: ir.Model, linears: list[ir.Node], precision: Precision, given: Plan
) -> dict[ir.Node, str]:
    """Chooses the weights of each linear layer: the last one is the output projection."""
    plan = {node: given.get(_name_of(node), precision.weights) for node in linears}
    if precision.mixed_layers:
        plan.update(dict.fromkeys(_sensitive(model, linears), "int8"))
    head = linears[-1]
    weights = precision.lm_head or given.get(_name_of(head), precision.head)
    same = [node for node in linears if node.inputs[1] is head.inputs[1]]
    return plan | dict.fromkeys(same, weights)


def _sensitive(model: ir.Model, linears: list[ir.Node]) -> list[ir.Node]:
    """Finds the input and the down projections of the layers that llama.cpp gives more bits.

    The input is that of the attention, or of what a recurrent layer has in its place.
    The first and the last eighth, and every third between them: use_more_bits in
    https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp.
    """
    order = {node: number for number, node in enumerate(model.graph)}
    mixers = _mixers(model)
    layers = len(mixers)
    chosen: list[ir.Node] = []
    for layer, place in enumerate(mixers):
        eighth = layers / 8
        if layer < eighth or layer >= 7 * eighth or (layer - round(eighth)) % 3 == 2:
            after = mixers[layer + 1] if layer + 1 < layers else len(order)
            before = [node for node in linears if order[node] < place]
            inside = [node for node in linears if place < order[node] < after]
            inputs = _inputs_of(before)
            last = inside[-1] if layer + 1 == layers else None
            down = inside[:-1] if last is not None else _without_inputs(inside)
            chosen += [*inputs, *down[-1:]]
    return chosen


def _mixers(model: ir.Model) -> list[int]:
    """Returns the position in the graph of each layer's first node that has a state."""
    places: dict[int, int] = {}
    for place, node in enumerate(model.graph):
        for output in node.outputs:
            layer = contract.layer_of(str(output.name))
            if layer is not None:
                places.setdefault(layer, place)
    return sorted(places.values())


def _inputs_of(before: list[ir.Node]) -> list[ir.Node]:
    """Returns the last linear layers before the attention that share a source: its inputs."""
    return [node for node in before if node.inputs[0] is before[-1].inputs[0]]


def _without_inputs(inside: list[ir.Node]) -> list[ir.Node]:
    """Returns the layer's own linears, without the next layer's attention input."""
    return [node for node in inside if node.inputs[0] is not inside[-1].inputs[0]]


@dataclass(frozen=True, slots=True)
class _QuantizedMatrix:
    """A quantised matrix in the graph: its initialisers, and the attributes of its readers."""

    inputs: list[ir.Value | None]
    attributes: dict[str, int]


@dataclass(slots=True)
class _Quantizer:
    """Quantises each matrix once, however many nodes read it."""

    model: ir.Model
    precision: Precision
    done: dict[tuple[ir.Value, str, bool], _QuantizedMatrix] = field(default_factory=dict)

    def linear(self, node: ir.Node, weights: str) -> _QuantizedMatrix:
        """Quantises the weight of a linear layer."""
        return self._quantise(cast("ir.Value", node.inputs[1]), weights, _is_turned(node))

    def embedding(self, node: ir.Node, weights: str) -> _QuantizedMatrix:
        """Quantises the table of an embedding, [entries, hidden]."""
        return self._quantise(cast("ir.Value", node.inputs[0]), weights, transpose=False)

    def _quantise(self, value: ir.Value, weights: str, transpose: bool) -> _QuantizedMatrix:
        key = (value, weights, transpose)
        if key not in self.done:
            matrix = _matrix_of(value, transpose)
            self.done[key] = self._store(value, matrix, weights)
        return self.done[key]

    def _store(self, value: ir.Value, matrix: Weight, weights: str) -> _QuantizedMatrix:
        bits, size = BITS[weights], self.precision.block_size
        tensors = quantized_tensors(matrix, bits, size, self.precision.algorithm_of(weights))
        names = ("values", "scales", "row_scales" if weights in COMPACT else "offsets")
        inputs = [
            None if tensor is None else add_tensor(self.model, f"{value.name}.{name}", tensor)
            for name, tensor in zip(names, tensors, strict=True)
        ]
        rows, columns = matrix.shape
        return _QuantizedMatrix(inputs, {"K": columns, "N": rows, "bits": bits, "block_size": size})


def _halve_cache(model: ir.Model) -> None:
    """Stores keys and values in float16: their rounding is small beside that of the weights."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        if contract.is_by_position(str(value.name)):
            value.type = ir.TensorType(ir.DataType.FLOAT16)


def _replace_linear(node: ir.Node, matrix: _QuantizedMatrix) -> None:
    result, bias = _result_and_bias(node)
    before = result.producer() or node
    inputs = [node.inputs[0], *matrix.inputs, bias]
    product = insert(
        before, "AffineMatMul", inputs, matrix.attributes, KINDLING, like=[result]
    ).outputs[0]
    rename(product, result)


def _result_and_bias(node: ir.Node) -> tuple[ir.Value, ir.Value | None]:
    """Returns the layer's output, and its bias where only an Add of one follows."""
    product = node.outputs[0]
    total = only_user(product)
    if total is None or total.op_type != "Add":
        return product, None
    bias = next(value for value in total.inputs if value is not product)
    return (total.outputs[0], bias) if constant_rank(bias) == 1 else (product, None)


def _replace_embedding(node: ir.Node, matrix: _QuantizedMatrix) -> None:
    inputs = [node.inputs[1], *matrix.inputs]
    gather = insert(
        node, "AffineGather", inputs, matrix.attributes, KINDLING, like=[node.outputs[0]]
    )
    replace(node.outputs[0], gather.outputs[0])
