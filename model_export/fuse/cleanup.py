"""Constants folded, casts and copies that do nothing removed, dead nodes dropped."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.optimizer import optimize

_FOLD_LIMIT = 1 << 14
"""Elements of the largest constant that is computed now: norm weights, shapes, frequencies.
Weight matrices stay as they are."""


def clean(model: ir.Model) -> None:
    """onnxscript's optimizer, and one name for each constant."""
    optimize(
        model,
        num_iterations=3,
        onnx_shape_inference=False,
        input_size_limit=_FOLD_LIMIT,
        output_size_limit=_FOLD_LIMIT,
    )
    ir.passes.common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    ir.passes.common.DeduplicateInitializersPass()(model)
    ir.passes.common.RemoveUnusedNodesPass()(model)
