"""Writes down shapes that the trace computes at run time, where they are known.

The trace reads sizes off its tensors: chains of Shape, Gather, Unsqueeze and Concat before
every Reshape. ONNX Runtime's symbolic inference knows each dimension as a number or as an
expression of the contract's dimensions, which is enough to write the Reshape's target as a
constant: 0 for a dimension that stays, -1 for the one that does not.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir

from model_export.fuse.graphs import (
    add_initializer,
    constant,
    dimensions,
    insert,
    producer,
    replace,
    tidy,
)
from model_export.reporting import ExportError

if TYPE_CHECKING:
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

_OWN_OPERATORS = {"CausalConvolution": (0, 3), "LinearAttention": (2, 5)}
"""Operators that a trace leaves: the input whose shape each output has."""
_LARGEST = 2**31 - 1
"""The end of a Slice that means all: SymbolicShapeInference's own default."""
_DATA_LIMIT = 1 << 10
"""Elements of the largest constant that inference may need to see; weights stay out of it."""


def make_shapes_static(model: ir.Model) -> None:
    """Writes down every shape that is known, and drops the nodes that copy by it."""
    infer_shapes(model)
    for node in list(model.graph):
        match node.op_type:
            case "Reshape":
                _fix_target(model, node)
            case "Expand":
                _drop_copy(node)
            case "Slice" if _forward(node):
                _drop_copy(node)
            case "Gather":
                _fix_dimension(model, node)
            case "Concat":
                _drop_empty_parts(node)
    tidy(model)


def infer_shapes(model: ir.Model) -> None:
    """Gives every value its type and symbolic shape. Raises ExportError where that fails.

    Merging: BERT cuts its positions off a table of 512, so that "sequence" meets
    "Min(512, sequence)" in a sum, where both must be the same.
    """
    try:
        proto = _inferred(_without_weights(model))
    except Exception as error:
        raise ExportError(
            f"ONNX Runtime cannot infer the graph's shapes, so it cannot be exported: {error}"
        ) from error
    inferred = ir.from_proto(proto)
    found = {value.name: value for node in inferred.graph for value in node.outputs}
    for node in model.graph:
        for value in node.outputs:
            known = found.get(value.name)
            if known is not None and not value.is_graph_output() and known.dtype is not None:
                value.dtype, value.shape = known.dtype, known.shape


def _inferred(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Does what SymbolicShapeInference.infer_shapes does, which cannot learn our operators."""
    # It brings torch, ten seconds that the quantiser's tests need not wait.
    from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

    inference = SymbolicShapeInference(_LARGEST, True, False, 0)
    for op_type, like in _OWN_OPERATORS.items():
        inference.dispatcher_[op_type] = partial(_as_inputs, inference, like)
    inference._preprocess(proto)
    complete = False
    while inference.run_:
        complete = inference._infer_impl()
    inference._update_output_from_vi()
    if not complete:
        raise ValueError("one of its nodes has a shape that it does not know")
    found: onnx.ModelProto = inference.out_mp_
    return found


def _as_inputs(
    inference: SymbolicShapeInference, like: tuple[int, ...], node: onnx.NodeProto
) -> None:
    for output, source in enumerate(like):
        inference._propagate_shape_and_type(node, source, output)


def _without_weights(model: ir.Model):  # type: ignore[no-untyped-def]
    """Returns the model as a proto with its large initialisers as inputs, and no stale shapes."""
    copy = ir.Model(model.graph.clone(), ir_version=model.ir_version)
    for value in list(copy.graph.initializers.values()):
        if value.const_value is not None and value.const_value.size > _DATA_LIMIT:
            copy.graph.initializers.pop(str(value.name))
            value.const_value = None
            copy.graph.inputs.append(value)
    proto = ir.to_proto(copy)
    del proto.graph.value_info[:]
    return proto


def _fix_target(model: ir.Model, node: ir.Node) -> None:
    _skip_reshapes(node)
    source, target = node.inputs[0], node.inputs[1]
    before, after = dimensions(source), dimensions(node.outputs[0])  # type: ignore[arg-type]
    if before is None or after is None:
        return
    if before == after and None not in before:
        replace(node.outputs[0], source)  # type: ignore[arg-type]
        return
    vector = _target(before, after)
    known = constant(target)
    if vector is not None and (known is None or known.tolist() != vector):
        name = f"{node.name}/target"
        node.replace_input_with(1, add_initializer(model, name, np.array(vector, np.int64)))


def _skip_reshapes(node: ir.Node) -> None:
    """Makes Reshape(Reshape(x)) read x, where the target can be said in terms of x."""
    after = dimensions(node.outputs[0])
    inner = producer(node.inputs[0], "Reshape")
    while inner is not None and after is not None:
        before = dimensions(inner.inputs[0])  # type: ignore[arg-type]
        if before is None or _target(before, after) is None:
            return
        node.replace_input_with(0, inner.inputs[0])
        inner = producer(inner.inputs[0], "Reshape")


def _target(
    before: tuple[int | str | None, ...], after: tuple[int | str | None, ...]
) -> list[int] | None:
    """Returns Reshape's target vector, None if 0, -1 and numbers cannot say it."""
    vector = []
    for axis, size in enumerate(after):
        if isinstance(size, int):
            vector.append(size)
        elif size is not None and axis < len(before) and before[axis] == size:
            vector.append(0)
        else:
            vector.append(-1)
    return vector if vector.count(-1) <= 1 else None


def _drop_copy(node: ir.Node) -> None:
    source = node.inputs[0]
    before, after = dimensions(source), dimensions(node.outputs[0])  # type: ignore[arg-type]
    if before is not None and before == after and None not in before:
        replace(node.outputs[0], source)  # type: ignore[arg-type]


def _forward(cut: ir.Node) -> bool:
    """Tells whether every step of a Slice is 1: with -1 it reverses an axis of the same shape."""
    steps = cut.inputs[4] if len(cut.inputs) > 4 else None
    return steps is None or ((known := constant(steps)) is not None and bool((known == 1).all()))


def _fix_dimension(model: ir.Model, node: ir.Node) -> None:
    """Replaces Gather(Shape(x), k) of a known dimension by its number."""
    shape, index = node.inputs[0], constant(node.inputs[1])
    maker = shape.producer() if shape is not None else None
    if maker is None or maker.op_type != "Shape" or index is None or maker.attributes:
        return
    known = dimensions(maker.inputs[0])  # type: ignore[arg-type]
    if known is None:
        return
    sizes = [known[i] for i in index.reshape(-1).tolist()]
    if all(isinstance(size, int) for size in sizes):
        array = np.array(sizes, np.int64).reshape(index.shape)
        replace(node.outputs[0], add_initializer(model, f"{node.name}/size", array))


def _drop_empty_parts(node: ir.Node) -> None:
    """Drops parts of no size from a Concat: a model that rotates the whole head has one."""
    parts = [part for part in node.inputs if part is not None and 0 not in (dimensions(part) or ())]
    if len(parts) == 1:
        replace(node.outputs[0], parts[0])
    elif len(parts) < len(node.inputs):
        joined = insert(
            node, "Concat", parts, {"axis": node.attributes["axis"].value}, like=node.outputs
        )
        replace(node.outputs[0], joined.outputs[0])
