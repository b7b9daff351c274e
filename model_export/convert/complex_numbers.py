"""Complex numbers as pairs of real tensors, since ONNX has none.

Some architectures (DeepSeek-V2, Llama 4) turn query and key by a complex product. These stand in
for torch's functions while a model is traced; operations.py puts them there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Complex:
    """Understands what models do to a complex tensor before they view it as real again."""

    real: torch.Tensor
    imaginary: torch.Tensor

    @property
    def device(self) -> torch.device:
        """Of both parts."""
        return self.real.device

    def __mul__(self, factor: Complex | float) -> Complex:
        """Elementwise, broadcast as tensors are."""
        if not isinstance(factor, Complex):
            return Complex(self.real * factor, self.imaginary * factor)
        return Complex(
            self.real * factor.real - self.imaginary * factor.imaginary,
            self.real * factor.imaginary + self.imaginary * factor.real,
        )

    def __getitem__(self, index: Any) -> Complex:
        """As of a tensor."""
        return Complex(self.real[index], self.imaginary[index])

    def unsqueeze(self, dim: int) -> Complex:
        """As of a tensor."""
        return Complex(self.real.unsqueeze(dim), self.imaginary.unsqueeze(dim))

    def to(self, device: torch.device) -> Complex:
        """As of a tensor."""
        return Complex(self.real.to(device), self.imaginary.to(device))


def polar(absolute: torch.Tensor, angle: torch.Tensor) -> Complex:
    """torch.polar. `angle` in radians."""
    return Complex(absolute * angle.cos(), absolute * angle.sin())


def view_as_complex(pairs: torch.Tensor) -> Complex:
    """torch.view_as_complex of `pairs` [..., 2], as a copy."""
    return Complex(pairs[..., 0], pairs[..., 1])


def view_as_real(number: Complex) -> torch.Tensor:
    """torch.view_as_real: [..., 2], as a copy."""
    return torch.stack((number.real, number.imaginary), dim=-1)
