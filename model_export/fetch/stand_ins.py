"""Stands in for the weights of a torch module, so that a model of any size can be traced.

A stand-in is a parameter of the weight's shape with one value of memory; it remembers its Weight.
`real_weights` puts the values themselves in its place for as long as a computation needs them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from model_export.weights import Weight


def stand_in(weight: Weight) -> torch.nn.Parameter:
    """Returns a parameter of zeros with the weight's shape, which takes four bytes."""
    zeros = torch.zeros((), dtype=torch.float32).expand(weight.shape)
    parameter = torch.nn.Parameter(zeros, requires_grad=False)
    parameter.weight = weight  # type: ignore[attr-defined]
    return parameter


def weight_of(tensor: torch.Tensor) -> Weight | None:
    """Returns what a stand-in stands for, None for a real tensor."""
    found: Weight | None = getattr(tensor, "weight", None)
    return found


def is_stand_in(tensor: torch.Tensor) -> bool:
    """Tells whether a tensor is a stand-in or a part of one: zeros that are one in memory."""
    shares = not any(tensor.stride()) and tensor.numel() > 1  # a fake tensor knows its strides
    return shares and not tensor[(0,) * tensor.ndim].item()


def real(weight: Weight) -> torch.nn.Parameter:
    """Reads the whole weight into a parameter of float32, which nobody may write into."""
    values = weight.read()
    if not values.flags.writeable:  # torch warns of such arrays
        values = values.copy()
    return torch.nn.Parameter(torch.from_numpy(values), requires_grad=False)


def fill(module: torch.nn.Module) -> None:
    """Reads all weights of `module` and its children into memory, in place of their stand-ins."""
    filled: dict[int, torch.nn.Parameter] = {}
    for owner, name, parameter, weight in _stand_ins(module):
        if id(parameter) not in filled:
            filled[id(parameter)] = real(weight)
        setattr(owner, name, filled[id(parameter)])


@contextmanager
def real_weights(module: torch.nn.Module) -> Iterator[None]:
    """Fills the stand-ins of `module` and its children with values while the block runs.

    A parameter that two modules share is read once.
    """
    before = list(_stand_ins(module))
    try:
        fill(module)
        yield
    finally:
        for owner, name, parameter, _ in before:
            setattr(owner, name, parameter)


def _stand_ins(
    module: torch.nn.Module,
) -> Iterator[tuple[torch.nn.Module, str, torch.nn.Parameter, Weight]]:
    """Yields each stand-in with its module and its name there; a shared one more than once."""
    for owner in module.modules():
        for name, parameter in list(owner.named_parameters(recurse=False, remove_duplicate=False)):
            weight = weight_of(parameter)
            if weight is not None:
                yield owner, name, parameter, weight
