"""Operations that torch's TorchScript exporter cannot write, or not well, in terms of others.

Called by architecture.py for the length of a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


def _repeat_interleave(
    tensor: torch.Tensor, repeats: int, dim: int = -1, **_: object
) -> torch.Tensor:
    """An Expand, whose shape the passes can infer.

    torch writes a loop (https://github.com/pytorch/pytorch/issues/145100), optimum a NonZero.
    """
    axis = dim % tensor.ndim
    shape = [-1] * (tensor.ndim + 1)
    shape[axis + 1] = repeats
    return tensor.unsqueeze(axis + 1).expand(shape).flatten(axis, axis + 1)


def _expm1(tensor: torch.Tensor) -> torch.Tensor:
    """ONNX has no expm1. Apertus's activation adds it to x, so 1e-7 of it is lost in x."""
    return tensor.exp() - 1


def _rms_norm(
    tensor: torch.Tensor,
    normalized_shape: tuple[int, ...],
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> torch.Tensor:
    """As transformers' own classes spell it, which the passes know."""
    axes = list(range(-len(normalized_shape), 0))
    mean = tensor.pow(2).mean(axes, keepdim=True)
    normal = tensor * torch.rsqrt(mean + (torch.finfo(tensor.dtype).eps if eps is None else eps))
    return normal if weight is None else weight * normal


_OPERATIONS: tuple[tuple[Any, str, Callable[..., torch.Tensor]], ...] = (
    (torch, "repeat_interleave", _repeat_interleave),
    (torch.Tensor, "repeat_interleave", _repeat_interleave),
    (torch, "expm1", _expm1),
    (torch.Tensor, "expm1", _expm1),
    (torch, "rms_norm", _rms_norm),
    (torch.nn.functional, "rms_norm", _rms_norm),
)


@contextmanager
def writable_operations() -> Iterator[None]:
    """Put the forms of this file in the place of torch's while the block runs."""
    before = [(place, name, getattr(place, name)) for place, name, _ in _OPERATIONS]
    for place, name, operation in _OPERATIONS:
        setattr(place, name, operation)
    try:
        yield
    finally:
        for place, name, operation in before:
            setattr(place, name, operation)
