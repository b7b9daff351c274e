"""The operators with a state of fixed size compute what numpy does, whatever the kind."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.linear_node import Linear
from tests.kernels.recurrent_kinds import FEW, KINDS
from tests.kernels.recurrent_node import Node, row_lengths


@pytest.mark.parametrize("name", KINDS)
def test_output_and_state_are_numpys(name: str) -> None:
    kind = KINDS[name]
    node, new = Node(kind, rows=2), kind.new_tokens(rows=2)
    found, (y, state) = node.step(new), kind.expected(new)
    np.testing.assert_allclose(found, y, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(node.state, state, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", FEW)
def test_rows_of_other_lengths_have_padding_of_zeros(name: str) -> None:
    kind, lengths = KINDS[name], [40, 1, 0, 17]
    node, new = Node(kind, rows=4), kind.new_tokens(rows=4, tokens=40)
    found = node.step(new, lengths)
    for row, length in enumerate(lengths):
        assert not np.any(found[row, length:])
        if length:
            y, state = kind.expected(new.row(row).part(0, length))
            np.testing.assert_allclose(found[row, :length], y[0], rtol=2e-5, atol=1e-5)
            np.testing.assert_allclose(node.state[row], state[0], rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("last", [-2, -1, 10**6, -(2**31)])
def test_an_idle_row_may_say_anything_of_its_length(name: str, last: int) -> None:
    kind = KINDS[name]
    node, new = Node(kind, rows=2), kind.new_tokens(rows=2, tokens=3)
    node.state[1] = before = np.arange(node.state[1].size).reshape(node.state[1].shape)
    found = node.run(new.inputs() | row_lengths([2, last], [3, 0]))
    np.testing.assert_allclose(found[0], kind.expected(new)[0][0], rtol=2e-5, atol=1e-5)
    assert not np.any(found[1])
    assert np.array_equal(node.state[1], before)


@pytest.mark.parametrize("name", FEW)
def test_no_tokens_and_no_rows_give_nothing(name: str) -> None:
    kind = KINDS[name]
    empty = Node(kind, rows=2)
    assert empty.step(kind.new_tokens(2, 0)).shape[:2] == (2, 0)
    assert np.all(np.isnan(empty.state))
    assert Node(kind, rows=0).step(kind.new_tokens(0, 5)).shape[:2] == (0, 5)


@pytest.mark.parametrize("decay", [0.0, -1e-6, -1.0, -20.0, -86.0, -88.0, -1e9, -np.inf])
def test_a_state_decays_by_any_power(decay: float) -> None:
    kind = Linear(beta=False, norm_epsilon=0.0)
    node, new = Node(kind), kind.new_tokens(tokens=1)
    node.state[:] = np.arange(node.state.size, dtype=np.float32).reshape(node.state.shape)
    new.arrays["key"][:] = 0
    new.arrays["decay"][:] = decay
    before = node.state.astype(np.float64)
    node.run(new.inputs() | row_lengths([7], [1]))
    np.testing.assert_allclose(node.state, before * np.exp(decay), rtol=3e-7, atol=1e-33)
