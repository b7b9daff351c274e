"""Attention's bits depend on a token's own ids alone; its weights are exact to a rounding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.kernels.attention_kinds import KINDS, with_cache
from tests.kernels.attention_node import POSITIONS, Kind, Node, new_tokens

CHUNKS = [[1] * 100, [2] * 50, [64, 36], [36, 64], [99, 1], [1, 99], [7, 8, 16, 17, 33, 15, 4]]


@pytest.mark.parametrize("name", KINDS)
def test_the_bits_depend_on_no_chunks(name: str, half: bool) -> None:
    kind = with_cache(KINDS[name], half)
    new = new_tokens(kind)
    whole = Node(kind).step(new)
    for chunks in CHUNKS:
        node = Node(kind)
        stops = np.cumsum(chunks)
        found = [node.step(new.part(stop - n, stop)) for n, stop in zip(chunks, stops, strict=True)]
        assert np.array_equal(np.concatenate(found, axis=1), whole), chunks


@pytest.mark.parametrize("tokens", [1, 100])
def test_the_bits_depend_on_no_number_of_threads(half: bool, tokens: int) -> None:
    kind = Kind(heads=9, kv_heads=3, size=64, half=half)
    new = new_tokens(kind, tokens=tokens)
    one = Node(kind).step(new)
    for threads in (2, 3, 5):
        assert np.array_equal(Node(kind, threads=threads).step(new), one)


def test_the_bits_depend_on_no_other_row(half: bool) -> None:
    """Rows alone, and beside others at other positions, of other lengths."""
    kind = Kind(rotary_size=32, window=30, half=half)
    new = new_tokens(kind, rows=3, tokens=60)
    together = Node(kind, rows=3)
    lengths = [[60, 5, 0], [1, 3, 60], [0, 1, 1]]
    found = [
        together.step(new, lengths[0]),
        together.step(new, lengths[1]),
        together.step(new, lengths[2]),
    ]
    for row in range(3):
        alone = Node(kind)
        for step, rows in zip(found, lengths, strict=True):
            if rows[row]:
                one = alone.step(new.row(row).part(0, rows[row]))
                assert np.array_equal(step[row, : rows[row]], one[0])


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf, 6e4, 1e-40])
@pytest.mark.parametrize("window", [-1, 20])
def test_the_bits_depend_on_nothing_that_is_not_seen(
    half: bool, garbage: float, window: int
) -> None:
    kind = Kind(window=window, half=half, size=40)
    new = new_tokens(kind, tokens=50)
    nodes = Node(kind), Node(kind)
    for node, filling in zip(nodes, (0, garbage), strict=True):
        node.keys[:] = filling
        node.values[:] = filling
    first, other = (
        np.concatenate(
            [node.step(new.part(a, b)) for a, b in ((0, 30), (30, 31), (31, 50))], axis=1
        )
        for node in nodes
    )
    assert np.array_equal(first, other)
    assert np.all(np.isfinite(first))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_touches_only_those_who_see_it(half: bool, value: float) -> None:
    kind = Kind(window=20, half=half)
    new = new_tokens(kind, tokens=60)
    clean = Node(kind).step(new)
    new.key[0, 25] = value
    new.value[0, 25] = value
    found = Node(kind).step(new)
    assert np.all(np.isnan(found[0, 25:45]))
    assert np.array_equal(found[0, :25], clean[0, :25])
    assert np.array_equal(found[0, 45:], clean[0, 45:])


def test_weights_are_exact_to_a_floats_rounding() -> None:
    """With two positions, the sink's weight and the other's: exp(x) over 1 + exp(x), for x <= 0."""
    kind = Kind(heads=64, kv_heads=64, size=1, sinks=True, scale=1.0)
    new = new_tokens(kind, rows=64, tokens=1)
    x = -np.geomspace(1e-6, 86.9, 64 * 64).astype(np.float32).reshape(64, 1, 64, 1)
    new.query[:], new.key[:], new.value[:], new.sinks[:] = x, 1, 1, 0
    found = Node(kind, rows=64, capacity=16).step(new).reshape(-1)
    exact = x.reshape(-1).astype(np.float64)
    np.testing.assert_allclose(found, np.exp(exact) / (1 + np.exp(exact)), rtol=3e-7)


def test_a_far_smaller_score_weighs_nothing_at_all() -> None:
    kind = Kind(heads=1, kv_heads=1, size=1, sinks=True, scale=1.0)
    new = new_tokens(kind, tokens=1)
    new.query[:], new.key[:], new.value[:], new.sinks[:] = -87.1, 1, 1e30, 0
    assert Node(kind).step(new)[0, 0, 0] == 0


def test_the_last_positions_of_a_cache_are_used(half: bool) -> None:
    """To its end and not beyond: the next row's cache is untouched."""
    kind = Kind(half=half, size=24)
    new = new_tokens(kind, rows=2, tokens=112)
    node = Node(kind, rows=2, capacity=112)
    node.step(new, [112, 0])
    assert np.all(np.isnan(node.values[1]))
    assert np.all(np.isnan(node.keys[1]))
    whole = Node(kind, capacity=POSITIONS).step(new.row(0))
    assert np.array_equal(Node(kind, capacity=112).step(new.row(0)), whole)


def test_settings_change_what_is_computed(half: bool) -> None:
    """Each setting that a node has tells: none is read from another's place."""
    kind = Kind(rotary_size=32, half=half)
    new = new_tokens(kind)
    plain = Node(kind).step(new)
    others = [
        {"window": 9},
        {"softcap": 2.0},
        {"scale": 0.3},
        {"interleaved": True},
        {"sinks": True},
    ]
    for other in others:
        assert not np.array_equal(Node(replace(kind, **other)).step(new), plain), other  # type: ignore[arg-type]
