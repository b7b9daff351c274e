"""Tiny models that are traced and fused once in a test run, since a trace takes a second or two.

Every caller gets a copy of its own, which shares the weights and nothing else.
"""

from __future__ import annotations

from functools import cache

import onnx_ir as ir

from model_export.decoder.convert import convert
from model_export.fuse import fuse
from tests.support.tiny_models import CONTEXT_LENGTH, tiny_model


def traced(family: str) -> ir.Model:
    """The graph of `tiny_model(family)` as `convert` makes it."""
    return _traced(family).clone()


def fused(family: str) -> ir.Model:
    """The same behind all passes of `fuse`."""
    return _fused(family).clone()


@cache
def _traced(family: str) -> ir.Model:
    return convert(tiny_model(family), CONTEXT_LENGTH)


@cache
def _fused(family: str) -> ir.Model:
    return fuse(traced(family))
