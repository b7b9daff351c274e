"""The forms of operations that a trace can take compute what torch's own do."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn.functional import linear

from model_export.fetch.stand_ins import stand_in
from model_export.trace.tracing import NoProducts, patch_unsupported_ops
from model_export.weights import ArrayWeight


def turned(states: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
    """A rotary embedding as DeepSeek-V2 and Llama 4 spell it."""
    turn = torch.polar(torch.full_like(angles, 1.5), angles) * 0.5
    pairs = torch.view_as_complex(states.reshape(*states.shape[:-1], -1, 2))
    assert pairs.device == states.device
    return torch.view_as_real(pairs * turn[:, :, None].to(pairs.device)).flatten(3)


def test_a_turn_by_complex_numbers_is_torchs() -> None:
    torch.manual_seed(0)
    states, angles = torch.randn(2, 5, 3, 8), torch.randn(2, 5, 4)
    expected = turned(states, angles)
    with patch_unsupported_ops():
        assert torch.allclose(turned(states, angles), expected, atol=1e-6)


@pytest.mark.parametrize("keepdim", [True, False])
@pytest.mark.parametrize("dim", [0, -1])
def test_the_greatest_along_an_axis_is_torchs(dim: int, keepdim: bool) -> None:
    tensor = torch.tensor([[3.0, 5.0, -1.0], [4.0, -2.0, 0.5]])
    expected = tensor.max(dim, keepdim=keepdim)
    with patch_unsupported_ops():
        greatest = tensor.max(dim, keepdim=keepdim)
    assert torch.equal(greatest.values, expected.values)
    assert torch.equal(greatest.indices, expected.indices)


def test_the_greatest_of_all_and_of_two_are_torchs() -> None:
    one, other = torch.tensor([1.0, 4.0]), torch.tensor([2.0, 3.0])
    with patch_unsupported_ops():
        assert one.max().item() == 4.0
        assert one.max(other).tolist() == [2.0, 4.0]


def test_a_product_with_a_stand_in_is_torchs() -> None:
    inputs, bias, small = torch.randn(2, 3, 8), torch.randn(4), torch.randn(4, 8)
    weight = stand_in(ArrayWeight(np.zeros((4, 8), np.float32)))
    layers: list[Callable[[], torch.Tensor]] = [
        lambda: linear(inputs, weight),
        lambda: linear(inputs, weight, bias),
        lambda: torch.addmm(bias, inputs[0], weight.T),
        lambda: torch.bmm(inputs, weight.expand(2, 4, 8).transpose(1, 2)),
        lambda: linear(inputs, small, bias),
    ]
    for layer in layers:
        expected = layer()
        with NoProducts():
            assert torch.equal(layer(), expected)


def test_a_product_with_a_stand_in_is_not_computed() -> None:
    weight = torch.nn.Parameter(torch.zeros(()).expand(1 << 19, 1 << 19), requires_grad=False)
    with NoProducts():  # a copy would take a terabyte
        assert not linear(torch.ones(3, 1 << 19), weight).any()
