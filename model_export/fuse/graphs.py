"""Helpers of the passes: small questions about values, and replacing one by another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import common

from model_export.lazy_tensors import WeightTensor
from model_export.weights import ArrayWeight, Weight

MICROSOFT = "com.microsoft"
KINDLING = "kindling"


def constant(value: ir.Value | None) -> NDArray[np.generic] | None:
    """Returns the array of an initialiser or a Constant node, None for anything else.

    Also for a weight that is not in memory, which `weight_of` returns unread.
    """
    tensor = _tensor_of(value)
    return None if tensor is None or isinstance(tensor, ir.LazyTensor) else tensor.numpy()


def weight_of(value: ir.Value | None) -> Weight | None:
    """Returns what a constant's values are read from, None for what is no constant of floats."""
    tensor = _tensor_of(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT:
        return None
    return tensor.weight if isinstance(tensor, WeightTensor) else ArrayWeight(tensor.numpy())


def constant_rank(value: ir.Value | None) -> int | None:
    """Returns the number of a constant's axes, None for what is no constant."""
    tensor = _tensor_of(value)
    return None if tensor is None else len(tensor.shape)


def _tensor_of(value: ir.Value | None) -> ir.TensorProtocol | None:
    return ir.convenience.get_const_tensor(value) if value is not None else None


def scalar(value: ir.Value | None) -> float | None:
    """Returns the number of a constant of one element."""
    array = constant(value)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def producer(value: ir.Value | None, *op_types: str) -> ir.Node | None:
    """Returns the node that makes `value`, if it is one of `op_types`."""
    node = value.producer() if value is not None else None
    return node if node is not None and node.op_type in op_types else None


def only_user(value: ir.Value) -> ir.Node | None:
    """Returns the one node that reads `value`, None if there are more, or if it is an output."""
    users = {use.node for use in value.uses()}
    return users.pop() if len(users) == 1 and not value.is_graph_output() else None


def attribute(node: ir.Node, name: str, default: float | int) -> float | int:
    """Returns a numeric attribute, or its default."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def dimensions(value: ir.Value) -> tuple[int | str | None, ...] | None:
    """Returns the shape as ints and names, None where it is unknown."""
    if value.shape is None:
        return None
    return tuple(d if isinstance(d, int) else d.value for d in value.shape)


def add_initializer(model: ir.Model, name: str, array: NDArray[np.generic]) -> ir.Value:
    """Adds an initialiser; `name` is made unique."""
    return add_tensor(model, name, ir.tensor(array))


def add_weight(model: ir.Model, name: str, weight: Weight) -> ir.Value:
    """Adds an initialiser that is read when it is written; `name` is made unique."""
    return add_tensor(model, name, WeightTensor(weight))


def add_tensor(model: ir.Model, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Adds an initialiser of a tensor without a name; `name` is made unique."""
    unique, number = name, 0
    while unique in model.graph.initializers:
        number += 1
        unique = f"{name}.{number}"
    tensor.name = unique
    value = ir.Value(name=unique, const_value=tensor)
    value.type, value.shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
    model.graph.initializers.add(value)
    return value


def insert(
    before: ir.Node,
    op_type: str,
    inputs: Sequence[ir.Value | None],
    attributes: Mapping[str, int | float | str | Sequence[int]] | None = None,
    domain: str = "",
    outputs: int = 1,
    like: Sequence[ir.Value] = (),
) -> ir.Node:
    """Inserts a node before another. Its outputs take shape and type from the values in `like`."""
    node = ir.Node(
        domain,
        op_type,
        inputs,
        ir.convenience.convert_attributes(attributes or {}),
        num_outputs=outputs,
        name=f"{before.name}/{op_type}",
    )
    for index, output in enumerate(node.outputs):
        output.name = f"{before.name}/{op_type}_output_{index}"
    for output, template in zip(node.outputs, like, strict=False):
        output.shape, output.type = template.shape, template.type
    before.graph.insert_before(before, node)  # type: ignore[union-attr]
    return node


def replace(old: ir.Value, new: ir.Value) -> None:
    """Lets every reader of `old`, the graph's outputs too, read `new`."""
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)


def rename(new: ir.Value, old: ir.Value) -> None:
    """Lets `new` stand for `old` under the same name, which an output of the graph must keep."""
    name = old.name
    old.name = f"{name}/before"
    new.name = name
    replace(old, new)


def tidy(model: ir.Model) -> None:
    """Drops nodes and initialisers that nothing reads, and gives every value a name of its own.

    An output of Microsoft's nodes that nothing reads gets the empty name: a kernel then does not
    compute it, which is 1 of a SkipSimplifiedLayerNormalization's 8 microseconds. ONNX's own
    nodes may have to keep theirs (TopK's values).
    """
    common.RemoveUnusedNodesPass()(model)
    common.NameFixPass()(model)
    for node in (node for node in model.graph if node.domain == MICROSOFT):
        for output in node.outputs:
            if not output.uses() and not output.is_graph_output():
                output.name = ""
