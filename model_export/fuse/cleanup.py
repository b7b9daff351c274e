"""Folds constants and removes casts, copies, Transposes that cancel, and dead nodes."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import common
from onnxscript.optimizer import fold_constants

from model_export.fuse.graphs import (
    add_weight,
    attribute,
    constant,
    constant_rank,
    producer,
    replace,
    tidy,
    weight_of,
)
from model_export.lazy_tensors import WeightTensor
from model_export.weights import EntryWeight, importance_of, reshaped

_FOLD_LIMIT = 1 << 14
"""Elements of the largest constant that is computed now: norm weights, shapes, frequencies.
Weight matrices stay as they are."""


def clean(model: ir.Model) -> None:
    """Folds, drops and shares what can be without knowing any pattern.

    Only the folding half of onnxscript's optimizer: its rewriting half needs a minute for a
    model of 30 layers, since it searches a list of all nodes for every one of them.
    """
    common.IdentityEliminationPass()(model)
    fold_constants(
        model,
        onnx_shape_inference=False,
        input_size_limit=_FOLD_LIMIT,
        output_size_limit=_FOLD_LIMIT,
        should_fold=_should_fold,
    )
    for node in model.graph:
        if node.op_type == "Transpose":
            _cancel(node)
        elif node.op_type == "Squeeze":
            _squeeze_weight(model, node)
        elif node.op_type == "Gather":
            _pick_entry(model, node)
    common.IdentityEliminationPass()(model)
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    common.DeduplicateInitializersPass()(model)
    tidy(model)


def _should_fold(node: ir.Node) -> bool | None:
    """Keeps onnxscript from folding a Transpose of a weight, which no limit of its own does."""
    tensors = [value.const_value for value in node.inputs if value is not None]
    return False if any(tensor is not None and _is_weight(tensor) for tensor in tensors) else None


def _is_weight(tensor: ir.TensorProtocol) -> bool:
    """Tells matrices from other constants: those that are large, or whose inputs were measured."""
    if isinstance(tensor, WeightTensor) and importance_of(tensor.weight) is not None:
        return True
    return tensor.size > _FOLD_LIMIT


def _cancel(node: ir.Node) -> None:
    """Removes two Transposes that undo each other."""
    inner = producer(node.inputs[0], "Transpose")
    if inner is None or "perm" not in node.attributes or "perm" not in inner.attributes:
        return
    first, second = inner.attributes["perm"].as_ints(), node.attributes["perm"].as_ints()
    source = inner.inputs[0]
    if source is not None and [first[axis] for axis in second] == list(range(len(first))):
        replace(node.outputs[0], source)


def _squeeze_weight(model: ir.Model, node: ir.Node) -> None:
    """Replaces a Squeeze of a weight by a view of it: a short convolution's, however large."""
    weight, axes = weight_of(node.inputs[0]), constant(node.inputs[1] if node.inputs[1:] else None)
    if weight is not None and axes is not None:
        rank = len(weight.shape)
        gone = {int(axis) % rank for axis in axes.reshape(-1)}
        shape = tuple(size for axis, size in enumerate(weight.shape) if axis not in gone)
        name = str(node.inputs[0].name)  # type: ignore[union-attr]
        squeezed = add_weight(model, f"{name}/squeezed", reshaped(weight, shape))
        replace(node.outputs[0], squeezed)


def _pick_entry(model: ir.Model, node: ir.Node) -> None:
    """Replaces a Gather of one matrix out of many, an expert's, by that matrix."""
    source, index = node.inputs[0], constant(node.inputs[1])
    weight = weight_of(source) if constant_rank(source) == 3 else None
    if source is None or weight is None or index is None or index.ndim:
        return
    if attribute(node, "axis", 0) == 0:
        number = int(index) % weight.shape[0]
        entry = add_weight(model, f"{source.name}.{number}", EntryWeight(weight, number))
        replace(node.outputs[0], entry)
