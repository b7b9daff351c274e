"""Attention by every kernel that this CPU can run: what numpy computes, whatever the kind."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.attention_kinds import KINDS, with_cache
from tests.kernels.attention_node import Kind, New, Node, expected, new_tokens, stored, with_rope


@pytest.mark.parametrize("name", KINDS)
def test_the_output_is_numpys(name: str, half: bool) -> None:
    kind = with_cache(KINDS[name], half)
    new = new_tokens(kind, rows=2)
    found = Node(kind, rows=2).step(new)
    np.testing.assert_allclose(found, expected(kind, new), rtol=2e-5, atol=1e-5)


def test_new_keys_and_values_lie_in_the_cache_and_nothing_else_changes(half: bool) -> None:
    kind = Kind(rotary_size=32, half=half)
    node, new = Node(kind, rows=2), new_tokens(kind, rows=2, tokens=21)
    node.step(new)
    keys = node.keys.transpose(0, 2, 4, 1, 3).reshape(2, 128, kind.kv_heads, kind.size)
    assert np.array_equal(keys[:, :21], stored(kind, with_rope(kind, new, new.key)))
    assert np.array_equal(node.values.swapaxes(1, 2)[:, :21], stored(kind, new.value))
    assert np.all(np.isnan(keys[:, 21:]))
    assert np.all(np.isnan(node.values[:, :, 21:]))


def test_rows_of_other_lengths_have_padding_of_zeros_that_is_not_written(half: bool) -> None:
    kind = Kind(rotary_size=32, half=half)
    node, new = Node(kind, rows=4), new_tokens(kind, rows=4, tokens=40)
    found, lengths = node.step(new, [40, 1, 0, 17]), [40, 1, 0, 17]
    for row, length in enumerate(lengths):
        alone = Node(kind).step(new.row(row).part(0, length)) if length else found[:1, :0]
        assert np.array_equal(found[row, :length], alone[0])
        assert not np.any(found[row, length:])
        assert np.all(np.isnan(node.values[row, :, length:]))


def test_an_idle_row_may_say_anything_of_its_length() -> None:
    kind = Kind()
    node, new = Node(kind, rows=2), new_tokens(kind, rows=2, tokens=3)
    lengths = {"query_seqlens": np.array([3, 0], np.int32)}
    for last in (-2, 10**6, -(2**31)):
        found = node.run(new.inputs(kind) | lengths | {"seqlens_k": np.array([2, last], np.int32)})
        np.testing.assert_allclose(found[0], expected(kind, new)[0], atol=1e-5)
        assert not np.any(found[1])


@pytest.mark.parametrize("rows", [1, 3])
def test_scores_of_any_size_are_weighed(half: bool, rows: int) -> None:
    """A softmax without its largest score taken off would overflow, or find nothing but zeros.

    With -40 one product of the 3 rows rounds twice by the portable kernel: see `alike`.
    """
    for scale in (40.0, -39.0):
        kind = Kind(scale=scale, half=half)
        new = new_tokens(kind, rows)
        found = Node(kind, rows).step(new)
        np.testing.assert_allclose(found, scaled_softmax(kind, new), rtol=2e-3, atol=2e-3)


def scaled_softmax(kind: Kind, new: New) -> np.ndarray:
    """As expected(), for scores beyond what exp can hold."""
    query = new.query.astype(np.float64)
    key = stored(kind, new.key).repeat(kind.heads // kind.kv_heads, axis=2)
    value = stored(kind, new.value).repeat(kind.heads // kind.kv_heads, axis=2)
    scores = np.einsum("rqhd,rkhd->rhqk", query, key) * kind.factor
    scores[..., np.triu(np.ones(scores.shape[2:], bool), 1)] = -np.inf
    weights = np.exp(scores - scores.max(axis=3, keepdims=True))
    weights /= weights.sum(axis=3, keepdims=True)
    rows, tokens = new.query.shape[:2]
    found: np.ndarray = np.einsum("rhqk,rkhd->rqhd", weights, value).reshape(rows, tokens, -1)
    return found


def test_no_tokens_and_no_rows_give_nothing() -> None:
    kind = Kind()
    assert Node(kind, rows=2).step(new_tokens(kind, 2, 0)).shape == (2, 0, 128)
    assert Node(kind, rows=0).step(new_tokens(kind, 0, 5)).shape == (0, 5, 128)


def test_sessions_may_have_caches_of_both_types() -> None:
    kinds = [Kind(half=half) for half in (True, False)]
    new = new_tokens(kinds[0])
    one, other = (Node(kind).step(new) for kind in kinds)
    np.testing.assert_allclose(one, other, atol=1e-2)
    assert not np.array_equal(one, other)
