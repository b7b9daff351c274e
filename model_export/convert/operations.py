"""Operations that torch's TorchScript exporter cannot write, or not well, in terms of others.

Called by architecture.py for the length of a trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

from model_export.convert.complex_numbers import polar, view_as_complex, view_as_real


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


class _Greatest(NamedTuple):
    """As torch.return_types.max."""

    values: torch.Tensor
    indices: torch.Tensor


def _max(
    tensor: torch.Tensor, dim: int | torch.Tensor | None = None, keepdim: bool = False
) -> torch.Tensor | _Greatest:
    """Along one axis a TopK: ONNX Runtime's inference does not know the shape of a ReduceMax."""
    if not isinstance(dim, int):
        return torch.max(tensor) if dim is None else torch.maximum(tensor, dim)
    values, indices = tensor.topk(1, dim)
    return _Greatest(*((each if keepdim else each.select(dim, 0)) for each in (values, indices)))


_OPERATIONS: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (torch, "repeat_interleave", _repeat_interleave),
    (torch.Tensor, "repeat_interleave", _repeat_interleave),
    (torch, "expm1", _expm1),
    (torch.Tensor, "expm1", _expm1),
    (torch, "rms_norm", _rms_norm),
    (torch.nn.functional, "rms_norm", _rms_norm),
    (torch.Tensor, "max", _max),
    (torch, "polar", polar),
    (torch, "view_as_complex", view_as_complex),
    (torch, "view_as_real", view_as_real),
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
