"""Graph passes that make the traced graph fast, each a file and a job.

Every pass finds its work by the shape of the graph, never by the name of an architecture, and
leaves a graph alone where its pattern is absent. docs/graph.md says what each one gained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from model_export.fuse.attention_input import uncut_attention_input
from model_export.fuse.cleanup import clean
from model_export.fuse.linears import plain_linears
from model_export.fuse.norms import fuse_norms
from model_export.fuse.own_attention import use_own_attention
from model_export.fuse.projections import pack_projections
from model_export.fuse.rotary import fuse_rotary
from model_export.fuse.shapes import make_shapes_static
from model_export.fuse.skip_norms import fuse_skip_norms

PASSES = (
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
    uncut_attention_input,
    fuse_skip_norms,
    clean,
    use_own_attention,
)


def fuse(model: ir.Model, passes: Sequence[Callable[[ir.Model], None]] = PASSES) -> ir.Model:
    """Run every pass over `model`, in place, and return it. The answers stay the same."""
    for fusion in passes:
        fusion(model)
    return model
