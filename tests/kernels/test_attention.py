"""Attention by every kernel that this CPU can run: what numpy computes, whatever the kind."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from tests.kernels.attention_node import Kind, New, Node, expected, new_tokens, stored, turned
from tests.support.affine_node import use_kernels

NAMES = ["portable", "avx2", "avx512"]
KINDS = {
    "grouped": Kind(heads=9, kv_heads=3, size=64),
    "one key-value head": Kind(heads=8, kv_heads=1, size=16),
    "each head its own": Kind(heads=3, kv_heads=3, size=24),
    "seven of a group": Kind(heads=7, kv_heads=1, size=48),
    "packed": Kind(packed=True, turned=32),
    "turned": Kind(turned=32),
    "turned in part": Kind(size=40, turned=12),
    "turned in pairs": Kind(turned=32, interleaved=True),
    "turned in pairs in part": Kind(size=20, turned=8, interleaved=True),
    "window": Kind(window=7),
    "window of one": Kind(window=1),
    "wider window than a chunk": Kind(window=70),
    "softcap": Kind(softcap=3.0, scale=1.0),
    "sinks": Kind(sinks=True),
    "scale": Kind(scale=0.05),
    "all": Kind(
        packed=True,
        turned=16,
        window=33,
        softcap=4.0,
        sinks=True,
        heads=6,
        size=80,
        interleaved=True,
    ),
    "16 wide": Kind(size=16),
    "odd": Kind(size=17),
    "100 wide": Kind(size=100),
    "128 wide": Kind(size=128),
    "256 wide": Kind(size=256),
}


@pytest.fixture(params=NAMES)
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each kernel that this CPU has, in turn; the best again in the end."""
    if not use_kernels(request.param):
        pytest.skip(f"this CPU has no {request.param}")
    yield request.param
    next(filter(use_kernels, reversed(NAMES)))


@pytest.fixture(params=[False, True], ids=["float32", "float16"])
def half(request: pytest.FixtureRequest) -> bool:
    """The cache's type."""
    found: bool = request.param
    return found


@pytest.mark.parametrize("name", KINDS)
def test_the_output_is_numpys(kernels: str, name: str, half: bool) -> None:
    kind = with_cache(KINDS[name], half)
    new = new_tokens(kind, rows=2)
    found = Node(kind, rows=2).step(new)
    np.testing.assert_allclose(found, expected(kind, new), rtol=2e-5, atol=1e-5)


def with_cache(kind: Kind, half: bool) -> Kind:
    return dataclasses.replace(kind, half=half)


def test_new_keys_and_values_lie_in_the_cache_and_nothing_else_changes(
    kernels: str, half: bool
) -> None:
    kind = Kind(turned=32, half=half)
    node, new = Node(kind, rows=2), new_tokens(kind, rows=2, tokens=21)
    node.step(new)
    keys = node.keys.transpose(0, 2, 4, 1, 3).reshape(2, 128, kind.kv_heads, kind.size)
    assert np.array_equal(keys[:, :21], stored(kind, turned(kind, new, new.key)))
    assert np.array_equal(node.values.swapaxes(1, 2)[:, :21], stored(kind, new.value))
    assert np.all(np.isnan(keys[:, 21:]))
    assert np.all(np.isnan(node.values[:, :, 21:]))


def test_rows_of_other_lengths_have_padding_of_zeros_that_is_not_written(
    kernels: str, half: bool
) -> None:
    kind = Kind(turned=32, half=half)
    node, new = Node(kind, rows=4), new_tokens(kind, rows=4, tokens=40)
    found, lengths = node.step(new, [40, 1, 0, 17]), [40, 1, 0, 17]
    for row, length in enumerate(lengths):
        alone = Node(kind).step(new.row(row).part(0, length)) if length else found[:1, :0]
        assert np.array_equal(found[row, :length], alone[0])
        assert not np.any(found[row, length:])
        assert np.all(np.isnan(node.values[row, :, length:]))


def test_an_idle_row_may_say_anything_of_its_length(kernels: str) -> None:
    kind = Kind()
    node, new = Node(kind, rows=2), new_tokens(kind, rows=2, tokens=3)
    lengths = {"query_seqlens": np.array([3, 0], np.int32)}
    for last in (-2, 10**6, -(2**31)):
        found = node.run(new.inputs(kind) | lengths | {"seqlens_k": np.array([2, last], np.int32)})
        np.testing.assert_allclose(found[0], expected(kind, new)[0], atol=1e-5)
        assert not np.any(found[1])


@pytest.mark.parametrize("rows", [1, 3])
def test_scores_of_any_size_are_weighed(kernels: str, half: bool, rows: int) -> None:
    """A softmax without its largest score taken off would overflow, or find nothing but zeros."""
    for scale in (40.0, -40.0):
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


def test_no_tokens_and_no_rows_give_nothing(kernels: str) -> None:
    kind = Kind()
    assert Node(kind, rows=2).step(new_tokens(kind, 2, 0)).shape == (2, 0, 128)
    assert Node(kind, rows=0).step(new_tokens(kind, 0, 5)).shape == (0, 5, 128)


def test_sessions_may_have_caches_of_both_types() -> None:
    kinds = [Kind(half=half) for half in (True, False)]
    new = new_tokens(kinds[0])
    one, other = (Node(kind).step(new) for kind in kinds)
    np.testing.assert_allclose(one, other, atol=1e-2)
    assert not np.array_equal(one, other)
