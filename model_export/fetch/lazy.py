"""Gives transformers tensors whose values are read when they are needed, not while it loads.

transformers decides which tensor of a file becomes which parameter, and joins, splits and turns
some of them. A LazyTensor has a shape and a Weight; what is done to it is recorded, and computed
whenever the result is read (fetch/recording.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._pytree import tree_map_only

from model_export.fetch.recording import equal, recorded
from model_export.weights import ArrayWeight, ComputedWeight, Floats, Weight

_aten = torch.ops.aten
_SAME = frozenset(
    {
        _aten.alias.default,
        _aten.clone.default,
        _aten.detach.default,
        _aten.lift_fresh.default,
        _aten._to_copy.default,
    }
)
"""Operations that leave the values as they are, where they leave their type."""
_FRESH = frozenset({_aten.empty_like.default, _aten.zeros_like.default, _aten.ones_like.default})
"""Operations that make another tensor of the same shape, as transformers' initialisation does."""


class LazyTensor(torch.Tensor):
    """A tensor of float32 without memory, whose values are those of `weight`."""

    weight: Weight

    @staticmethod
    def __new__(cls, weight: Weight) -> LazyTensor:
        """Makes a tensor of the weight's shape."""
        made: LazyTensor = torch.Tensor._make_wrapper_subclass(
            cls, weight.shape, dtype=torch.float32, device=torch.device("cpu")
        )
        made.weight = weight
        return made

    def __init__(self, weight: Weight) -> None:
        """Does nothing: __new__ keeps the weight."""

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]  # torch's own is a static method
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Records an operation on lazy tensors. Raises NotImplementedError where it writes."""
        if func is _aten.equal.default:
            return equal(*map(weight_in, args))
        if func._schema.is_mutable:
            raise NotImplementedError(f"{func} would write into a weight that is not read yet.")
        options = kwargs or {}
        if func in _FRESH:
            return func(torch.empty(()).expand(args[0].shape), **options)
        outline = _outline(func, args, options)
        if func in _SAME and outline.dtype == torch.float32:
            return LazyTensor(args[0].weight)
        if isinstance(outline, torch.Tensor):
            if outline.dtype != torch.float32:
                return _computed(func, args, options)
            weight = recorded(func, tree_map_only(torch.Tensor, weight_in, args), outline.shape)
            return LazyTensor(weight or _later(func, args, options, tuple(outline.shape)))
        return type(outline)(
            LazyTensor(
                recorded(func, tree_map_only(torch.Tensor, weight_in, args), part.shape, number)
                or _later(func, args, options, tuple(part.shape), number)
            )
            for number, part in enumerate(outline)
        )

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        """Names the shape: the values would have to be read."""
        return f"LazyTensor(shape={tuple(self.shape)})"


def weight_in(tensor: torch.Tensor) -> Weight:
    """Returns a lazy tensor's weight, or one that views a real tensor's values."""
    if isinstance(tensor, LazyTensor):
        return tensor.weight
    return ArrayWeight(tensor.detach().numpy())


def read(weight: Weight) -> torch.Tensor:
    """Reads a whole weight into a tensor, which nobody may write into."""
    values = weight.read()
    return torch.from_numpy(values if values.flags.writeable else values.copy())


def _outline(func: Any, args: Any, options: dict[str, Any]) -> Any:
    """Runs an operation on tensors of the same shapes without values."""

    def empty(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="meta")

    on_meta = {"device": torch.device("meta")} if options.get("device") is not None else {}
    return func(*tree_map_only(torch.Tensor, empty, args), **{**options, **on_meta})


def _computed(func: Any, args: Any, options: dict[str, Any]) -> Any:
    """Runs an operation on the values."""
    real = tree_map_only(LazyTensor, lambda tensor: read(tensor.weight), args)
    return func(*real, **options)


def _later(
    func: Any,
    args: Any,
    options: dict[str, Any],
    shape: tuple[int, ...],
    number: int | None = None,
) -> Weight:
    """Returns what an operation gives, or the part `number` of it, computed when it is read."""

    def compute() -> Floats:
        found = _computed(func, args, options)
        values: Floats = (found if number is None else found[number]).contiguous().numpy()
        return values

    return ComputedWeight(shape, compute)
