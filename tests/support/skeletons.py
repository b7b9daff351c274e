"""Models whose weights are read when they are asked for, made of models in memory."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from model_export.fetch.stand_ins import stand_in


@dataclass(slots=True)
class CountedWeight:
    """A weight in memory that counts how often all of it has been read."""

    array: NDArray[np.float32]
    reads: int = 0

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        self.reads += stop is None
        return self.array[start:stop].copy()


@dataclass(slots=True)
class Skeleton:
    """A model with stand-ins for all of its matrices, and what they stand for."""

    model: torch.nn.Module
    weights: dict[str, CountedWeight] = field(default_factory=dict)


def skeleton_of(model: torch.nn.Module) -> Skeleton:
    """Puts stand-ins into `model`, in place, tied ones once."""
    skeleton = Skeleton(model)
    made: dict[int, torch.nn.Parameter] = {}
    for place, owner in model.named_modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            if parameter.ndim < 2:
                continue
            if id(parameter) not in made:
                weight = CountedWeight(parameter.detach().numpy().copy())
                skeleton.weights[f"{place}.{name}"] = weight
                made[id(parameter)] = stand_in(weight)
            setattr(owner, name, made[id(parameter)])
    return skeleton
