"""Attention refuses what it could not compute, with a sentence, and touches no memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.kernels.attention_node import POSITIONS, Kind, Node, new_tokens, session
from tests.kernels.in_place import Array

REFUSED = RuntimeError  # with IOBinding, whatever the status
KIND = Kind(rotary_size=16, sinks=True)


def lengths(last: list[int], valid: list[int]) -> dict[str, Array]:
    return {"seqlens_k": np.array(last, np.int32), "query_seqlens": np.array(valid, np.int32)}


def given(kind: Kind = KIND) -> dict[str, Array]:
    """Two rows of five tokens at the beginning."""
    return new_tokens(kind, rows=2, tokens=5).inputs(kind) | lengths([4, 4], [5, 5])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (lengths([128, 4], [5, 5]), "do not fit the cache"),
        (lengths([2**31 - 1, 4], [5, 5]), "do not fit the cache"),
        (lengths([3, 4], [5, 5]), "seqlens_k . 1 is less"),
        (lengths([-(2**31), 4], [5, 5]), "seqlens_k . 1 is less"),
        (lengths([4, 5], [5, 6]), "more tokens than there are"),
        (lengths([4, 4], [5, -1]), "more tokens than there are, or less than 0"),
        (lengths([4], [5]), "are not .rows."),
        (lengths([4, 4, 4], [5, 5, 5]), "are not .rows."),
        ({"query": np.zeros((2, 5, 127), np.float32)}, "query is not as wide"),
        ({"query": np.zeros((2, 5, 256), np.float32)}, "query is not as wide"),
        ({"query": np.zeros((2, 640), np.float32)}, "query is not .rows, tokens, width."),
        ({"query": np.zeros((1, 5, 128), np.float32)}, "past_value is not"),
        ({"key": np.zeros((2, 4, 64), np.float32)}, "key and value are not"),
        ({"value": np.zeros((2, 5, 63), np.float32)}, "key and value are not"),
        ({"cos": np.zeros((POSITIONS, 7), np.float32)}, "cos and sin are not both"),
        ({"sin": np.zeros((POSITIONS - 1, 8), np.float32)}, "cos and sin are not both"),
        (dict.fromkeys(("cos", "sin"), np.zeros((POSITIONS, 17), np.float32)), "turn more than"),
        (dict.fromkeys(("cos", "sin"), np.zeros((4, 8), np.float32)), "longer than cos and sin"),
        ({"sinks": np.zeros(5, np.float32)}, "sinks is not"),
    ],
)
def test_a_batch_that_does_not_fit_is_refused(changed: dict[str, Array], message: str) -> None:
    node = Node(KIND, rows=2)
    with pytest.raises(REFUSED, match=f"Attention: .*{message}"):
        node.run(given() | changed)
    assert np.all(np.isnan(node.keys))
    assert np.all(np.isnan(node.values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda node: node.values[:, :, :120], "capacity is not a multiple of 16"),
        (lambda node: node.values[:, :, :112], "past_key is not"),
        (lambda node: node.values[:, :1], "past_value is not"),
        (lambda node: node.values[..., :31], "past_key is not"),
        (lambda node: node.values[:1], "past_value is not"),
        (lambda node: node.values[0], "past_value is not"),
        (lambda node: np.tile(node.values, 17), "head_size is not from 1 to 512"),
        (lambda node: node.values[..., :0], "head_size is not from 1 to 512"),
    ],
)
def test_a_cache_of_another_shape_is_refused(change: Callable[[Node], Array], message: str) -> None:
    node = Node(KIND, rows=2)
    node.values = np.ascontiguousarray(change(node))
    with pytest.raises(REFUSED, match=f"Attention: .*{message}"):
        node.run(given())


def test_a_packed_query_of_another_width_is_refused() -> None:
    kind = Kind(packed=True)
    changed = given(kind) | {"query": np.zeros((2, 5, 128), np.float32)}
    with pytest.raises(REFUSED, match="query is not as wide as its heads, or as query, key and"):
        Node(kind, rows=2).run(changed)


def test_a_cache_that_is_not_written_in_place_is_refused() -> None:
    with pytest.raises(REFUSED, match="must be bound to past_key's and past_value's memory"):
        Node(KIND, rows=2).run(given(), bind_presents=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"heads": 3}, "num_heads must be a multiple of kv_num_heads"),
        ({"heads": 0, "scale": 1.0}, "num_heads must be a multiple of kv_num_heads"),
        ({"kv_heads": -2}, "num_heads must be a multiple of kv_num_heads"),
        ({"window": 0}, "window must be positive, or -1"),
        ({"window": -2}, "window must be positive, or -1"),
        ({"window": 2**62}, "window must be positive, or -1"),
        ({"softcap": -1.0}, "softcap must be positive, or 0"),
    ],
)
def test_settings_without_a_meaning_are_refused_when_the_graph_loads(
    changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(Exception, match=message):
        session(Kind(**changed), threads=1)
