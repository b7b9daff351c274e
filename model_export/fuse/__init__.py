"""Passes that make the traced graph fast, one job a file.

Every pass finds its work by the shape of the graph, never by the name of an architecture, and
leaves a graph unchanged where its pattern is absent. docs/graph.md says what each one gained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from model_export.fuse.cleanup import clean
from model_export.fuse.kindling_attention import to_kindling_attention
from model_export.fuse.linears import plain_linears
from model_export.fuse.norms import fuse_norms
from model_export.fuse.projections import pack_projections
from model_export.fuse.qkv_input import pack_qkv_input
from model_export.fuse.rotary import fuse_rotary
from model_export.fuse.shapes import make_shapes_static
from model_export.fuse.skip_norms import fuse_skip_norms, sum_residuals

Pass = Callable[[ir.Model], None]
"""Changes a graph in place; the answers stay the same."""

DECODER_PASSES: tuple[Pass, ...] = (
    clean,
    make_shapes_static,
    clean,
    make_shapes_static,
    plain_linears,
    fuse_norms,
    fuse_rotary,
    clean,
    make_shapes_static,
    pack_projections,
    pack_qkv_input,
    fuse_skip_norms,
    clean,
    to_kindling_attention,
)

ENCODER_PASSES: tuple[Pass, ...] = (
    clean,
    make_shapes_static,
    clean,
    make_shapes_static,
    plain_linears,
    fuse_norms,
    sum_residuals,
    clean,
)
"""ONNX Runtime itself fuses the rest when it loads the graph, such as the scale into the product of
queries and keys. Its Attention and MultiHeadAttention nodes were slower: docs/graph.md."""


def fuse(model: ir.Model, passes: Sequence[Pass] = DECODER_PASSES) -> ir.Model:
    """Runs every pass over `model`, in place, and returns it."""
    for fusion in passes:
        fusion(model)
    return model
