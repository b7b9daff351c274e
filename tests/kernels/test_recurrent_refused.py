"""Operators with a state refuse what they cannot compute, with a sentence, and change nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.kernels.convolution_node import Convolution
from tests.kernels.in_place import Array
from tests.kernels.linear_node import Linear
from tests.kernels.recurrent_node import Kind, Node, row_lengths

REFUSED = RuntimeError  # with IOBinding, whatever the status
OPERATORS: dict[str, Kind] = {
    "CausalConvolution": Convolution(channels=40, width=4, bias=True),
    "LinearAttention": Linear(heads=4, key_heads=2, key_size=24, value_size=40),
}
LENGTHS = [
    (row_lengths([3, 4], [5, 5]), "seqlens_k . 1 is less"),
    (row_lengths([-(2**31), 4], [5, 5]), "seqlens_k . 1 is less"),
    (row_lengths([4, 5], [5, 6]), "more tokens than there are"),
    (row_lengths([4, 4], [5, -1]), "more tokens than there are, or less than 0"),
    (row_lengths([4], [5]), "are not .rows."),
    (row_lengths([4, 4, 4], [5, 5, 5]), "are not .rows."),
]


def zeros(*shape: int) -> Array:
    return np.zeros(shape, np.float32)


def refuse(operator: str, changed: dict[str, Array], message: str) -> None:
    """Two rows of five tokens at the beginning, but for what is changed, are refused."""
    kind = OPERATORS[operator]
    node = Node(kind, rows=2)
    node.state = changed.get("past_state", node.state)  # type: ignore[assignment]
    before = node.state.copy()
    given = kind.new_tokens(2, 5).inputs() | row_lengths([4, 4], [5, 5]) | changed
    given.pop("past_state", None)
    with pytest.raises(REFUSED, match=f"{operator}: .*{message}"):
        node.run(given)
    assert np.array_equal(node.state, before, equal_nan=True)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize(("changed", "message"), LENGTHS)
def test_lengths_without_a_meaning_are_refused(
    operator: str, changed: dict[str, Array], message: str
) -> None:
    refuse(operator, changed, message)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_state_that_is_not_written_in_place_is_refused(operator: str) -> None:
    kind = OPERATORS[operator]
    given = kind.new_tokens(2, 5).inputs() | row_lengths([4, 4], [5, 5])
    with pytest.raises(REFUSED, match=f"{operator}: .*must be bound to past_state's memory"):
        Node(kind, rows=2).run(given, bind_presents=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x": zeros(2, 200)}, "x is not .rows, tokens, channels."),
        ({"x": zeros(2, 5, 39)}, "weight is not .channels, width."),
        ({"x": zeros(1, 5, 40)}, "past_state is not"),
        ({"weight": zeros(40)}, "weight is not .channels, width."),
        ({"weight": zeros(40, 3)}, "past_state is not"),
        ({"weight": zeros(40, 1)}, "width is not from 2 to 8"),
        ({"weight": zeros(40, 9)}, "width is not from 2 to 8"),
        ({"bias": zeros(41)}, "bias is not .channels."),
        ({"bias": zeros(40, 1)}, "bias is not .channels."),
        ({"past_state": zeros(2, 4, 40)}, "past_state is not .rows, width - 1, channels."),
        ({"past_state": zeros(3, 3, 40)}, "past_state is not .rows, width - 1, channels."),
        ({"past_state": zeros(6, 40)}, "past_state is not .rows, width - 1, channels."),
    ],
)
def test_a_convolution_that_does_not_fit_is_refused(
    changed: dict[str, Array], message: str
) -> None:
    refuse("CausalConvolution", changed, message)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": zeros(2, 5, 47)}, "query and key are not"),
        ({"query": zeros(2, 4, 48)}, "query and key are not"),
        ({"key": zeros(2, 5, 96)}, "query and key are not"),
        ({"key": zeros(10, 48)}, "query and key are not"),
        ({"value": zeros(10, 160)}, "value is not"),
        ({"value": zeros(2, 5, 159)}, "value is not"),
        ({"value": zeros(1, 5, 160)}, "past_state is not"),
        ({"decay": zeros(2, 5, 2)}, "decay is not"),
        ({"decay": zeros(2, 5)}, "decay is not"),
        ({"beta": zeros(2, 5, 5)}, "beta is not"),
        ({"past_state": zeros(2, 2, 24, 40)}, "past_state is not"),
        ({"past_state": zeros(2, 4, 960)}, "past_state is not"),
        ({"past_state": zeros(2, 4, 23, 40)}, "query and key are not"),
        ({"past_state": zeros(2, 4, 24, 39)}, "value is not"),
        ({"past_state": zeros(2, 4, 0, 40)}, "key_size and value_size are not from 1 to 512"),
        ({"past_state": zeros(2, 4, 513, 40)}, "key_size and value_size are not from 1 to 512"),
        ({"past_state": zeros(2, 4, 24, 513)}, "key_size and value_size are not from 1 to 512"),
    ],
)
def test_linear_attention_that_does_not_fit_is_refused(
    changed: dict[str, Array], message: str
) -> None:
    refuse("LinearAttention", changed, message)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"heads": 3}, "num_heads must be a multiple of key_heads"),
        ({"heads": 0}, "num_heads must be a multiple of key_heads"),
        ({"key_heads": -2}, "num_heads must be a multiple of key_heads"),
        ({"norm_epsilon": -1e-6}, "norm_epsilon must be positive, or 0"),
        ({"norm_epsilon": float("nan")}, "norm_epsilon must be positive, or 0"),
    ],
)
def test_settings_without_a_meaning_are_refused_when_the_graph_loads(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        Linear(**changed).session()
