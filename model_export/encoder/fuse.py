"""The passes of an encoder's graph: those of a decoder's that find work in it.

ONNX Runtime itself fuses what is left when it loads the graph, such as the scale into the product
of queries and keys. Its Attention and MultiHeadAttention nodes were tried and lost: docs/graph.md.
"""

from __future__ import annotations

import onnx_ir as ir

from model_export import fuse as passes
from model_export.fuse.cleanup import clean
from model_export.fuse.linears import plain_linears
from model_export.fuse.norms import fuse_norms
from model_export.fuse.residuals import sum_residuals
from model_export.fuse.shapes import make_shapes_static

PASSES = (
    clean,
    make_shapes_static,
    clean,
    make_shapes_static,
    plain_linears,
    fuse_norms,
    sum_residuals,
    clean,
)


def fuse(model: ir.Model) -> ir.Model:
    """Run every pass over `model`, in place, and return it. The answers stay the same."""
    return passes.fuse(model, PASSES)
