"""Matrices are ordered by what int4 loses for each byte that int8 takes more."""

from __future__ import annotations

import numpy as np
import pytest

from model_export.quantize.block_quantizer import affine
from model_export.quantize.plan import Candidate, Frontier, frontier_of
from model_export.recipe import Precision
from model_export.weights import ArrayWeight, CalibratedWeight, TransposedWeight, Weight

AUTO = Precision("auto")


def random_matrix(rows: int = 64, columns: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def on_the_grid(rows: int = 64, columns: int = 64) -> np.ndarray:
    """Weights that four bits hold."""
    grid: np.ndarray = affine(random_matrix(rows, columns), 32).weights().astype(np.float32)
    return grid


def order(**matrices: Weight) -> list[str]:
    return [each.name for each in frontier_of(matrices, AUTO).candidates]


def test_what_four_bits_hold_is_last() -> None:
    assert order(held=ArrayWeight(on_the_grid()), lost=ArrayWeight(random_matrix())) == [
        "lost",
        "held",
    ]


def test_of_matrices_that_lose_alike_the_smaller_one_is_first() -> None:
    large = on_the_grid(rows=512)
    large[::16] = random_matrix(rows=32)  # as much as the small one loses, among more bytes
    found = order(large=ArrayWeight(large), small=ArrayWeight(random_matrix(rows=32)))
    assert found == ["small", "large"]


def test_of_matrices_alike_the_one_with_the_larger_outputs_is_first() -> None:
    quiet, loud = random_matrix(), 2 * random_matrix()
    assert order(quiet=ArrayWeight(quiet), loud=ArrayWeight(loud)) == ["loud", "quiet"]


def test_what_is_lost_counts_by_how_much_is_read_there() -> None:
    """Two halves, of which four bits hold one; where the other is read, more is lost."""
    mixed = np.concatenate([on_the_grid(), random_matrix(seed=1)], axis=1)
    held, lost = np.ones(128, np.float32), np.ones(128, np.float32)
    held[:64], lost[64:] = 100, 100
    weight = ArrayWeight(mixed)
    found = order(held=CalibratedWeight(weight, held), lost=CalibratedWeight(weight, lost))
    assert found == ["lost", "held"]


def test_a_matrix_that_lies_turned_loses_the_same() -> None:
    matrix = random_matrix(rows=512)
    turned = TransposedWeight(ArrayWeight(np.ascontiguousarray(matrix.T)))
    one, other = (
        frontier_of({"m": weight}, AUTO).candidates for weight in (ArrayWeight(matrix), turned)
    )
    assert one == other


def test_int8_takes_half_a_byte_a_weight_more_and_saves_the_offset_of_a_block() -> None:
    (one,) = frontier_of({"m": ArrayWeight(random_matrix())}, AUTO).candidates
    assert one.extra == 64 * 64 // 2 - 64 * 2 * 2


@pytest.fixture
def frontier() -> Frontier:
    """Four matrices, of 10, 20, 30 and 40 bytes more."""
    return Frontier(tuple(Candidate(f"m{size}", 1 / size, size) for size in (10, 20, 30, 40)))


def test_plans_are_nested(frontier: Frontier) -> None:
    assert set(frontier.plan(0).values()) == {"int4"}
    assert frontier.plan(2) == {"m10": "int8", "m20": "int8", "m30": "int4", "m40": "int4"}


def test_a_share_of_the_bytes_holds_so_many_matrices_in_their_order(frontier: Frontier) -> None:
    assert frontier.counts([0, 0.09]) == [0]
    assert frontier.counts([0, 0.1, 0.29, 0.3, 0.5, 0.75, 1]) == [0, 1, 2, 3, 4]
    assert frontier.counts(step / 31 for step in range(1, 32)) == [0, 1, 2, 3, 4]
    assert Frontier(()).counts([0, 1]) == [0]
