"""The bits of a token, and of the state behind it, depend on its own row's inputs alone."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.recurrent_kinds import FEW, KINDS
from tests.kernels.recurrent_node import Node

CHUNKS = [[1] * 50, [2] * 25, [32, 18], [49, 1], [1, 49], [7, 8, 16, 17, 2]]


@pytest.mark.parametrize("name", KINDS)
def test_the_bits_depend_on_no_chunks(name: str) -> None:
    kind = KINDS[name]
    whole, new = Node(kind), kind.new_tokens()
    expected = whole.step(new)
    for chunks in CHUNKS:
        node = Node(kind)
        stops = np.cumsum(chunks)
        found = [node.step(new.part(stop - n, stop)) for n, stop in zip(chunks, stops, strict=True)]
        assert np.array_equal(np.concatenate(found, axis=1), expected), chunks
        assert np.array_equal(node.state, whole.state), chunks


@pytest.mark.parametrize("name", ["Qwen3.5", "1300 channels"])
@pytest.mark.parametrize("tokens", [1, 100])
def test_the_bits_depend_on_no_number_of_threads(name: str, tokens: int) -> None:
    kind = KINDS[name]
    one, new = Node(kind, rows=3), kind.new_tokens(rows=3, tokens=tokens)
    expected = one.step(new)
    for threads in (2, 3, 5):
        node = Node(kind, rows=3, threads=threads)
        assert np.array_equal(node.step(new), expected)
        assert np.array_equal(node.state, one.state)


@pytest.mark.parametrize("name", FEW)
def test_the_bits_depend_on_no_other_row(name: str) -> None:
    """Rows alone, and beside others at other positions, of other lengths, or idle."""
    kind = KINDS[name]
    together, new = Node(kind, rows=3), kind.new_tokens(rows=3, tokens=60)
    alone = [Node(kind) for _ in range(3)]
    for lengths in ([60, 5, 0], [1, 3, 60], [0, 1, 1]):
        found = together.step(new, lengths)
        for row, length in enumerate(lengths):
            if length:
                one = alone[row].step(new.row(row).part(0, length))
                assert np.array_equal(found[row, :length], one[0])
            assert np.array_equal(together.state[row], alone[row].state[0], equal_nan=True)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("tokens", [1, 50])
def test_a_row_begins_at_zeros_whatever_its_state_holds(name: str, tokens: int) -> None:
    kind = KINDS[name]
    clean, new = Node(kind), kind.new_tokens(tokens=tokens)
    clean.state[:] = 0
    expected = clean.step(new)
    for garbage in (np.nan, np.inf, -np.inf, 3e38, 1e-40):
        node = Node(kind)
        node.state[:] = garbage
        assert np.array_equal(node.step(new), expected), garbage
        assert np.array_equal(node.state, clean.state), garbage


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("garbage", [np.nan, np.inf])
def test_padding_is_never_looked_at(name: str, garbage: float) -> None:
    kind = KINDS[name]
    clean, new = Node(kind), kind.new_tokens()
    expected = clean.step(new.part(0, 20))
    for array in new.arrays.values():
        array[:, 20:] = garbage
    node = Node(kind)
    assert np.array_equal(node.step(new, [20])[:, :20], expected)
    assert np.array_equal(node.state, clean.state)


@pytest.mark.parametrize("name", FEW)
def test_what_is_not_a_number_touches_no_token_before_it(name: str) -> None:
    kind = KINDS[name]
    new = kind.new_tokens()
    clean = Node(kind).step(new)
    next(iter(new.arrays.values()))[:, 25] = np.nan
    found = Node(kind).step(new)
    assert np.array_equal(found[:, :25], clean[:, :25])
    assert np.all(np.isnan(found[:, 25]))
