"""Upgrades of matrices are ordered by what they keep for each byte that they take."""

from __future__ import annotations

import numpy as np
import pytest

from model_export.grouped_weights import Grouped, GroupedWeight
from model_export.quantize.block_quantizer import affine
from model_export.quantize.plan import Frontier, OutputProjection, Upgrade, frontier_of
from model_export.recipe import BITS, Precision
from model_export.weights import ArrayWeight, CalibratedWeight, TransposedWeight, Weight

AUTO = Precision("auto")
SYMMETRIC = Precision("auto", algorithm="symmetric")
"""int4 without offsets, which int5 has."""


def random_matrix(rows: int = 64, columns: int = 64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).astype(np.float32)


def on_the_grid(rows: int = 64, columns: int = 64) -> np.ndarray:
    """Weights that four bits hold."""
    grid: np.ndarray = affine(random_matrix(rows, columns), 32).weights().astype(np.float32)
    return grid


def order(**matrices: Weight) -> list[str]:
    """The matrices, by their first upgrades."""
    return [*dict.fromkeys(each.matrix for each in frontier_of(matrices, AUTO).upgrades)]


def test_what_four_bits_hold_is_last_if_at_all() -> None:
    found = order(held=ArrayWeight(on_the_grid()), lost=ArrayWeight(random_matrix()))
    assert found in (["lost"], ["lost", "held"])


def test_a_matrix_has_its_upgrades_from_small_to_large_and_each_keeps_less_for_a_byte() -> None:
    upgrades = frontier_of({"m": ArrayWeight(random_matrix())}, AUTO).upgrades
    assert [each.weights for each in upgrades] == ["compact5", "compact6", "int8"]
    worth = [each.gain / each.extra for each in upgrades]
    assert worth == sorted(worth, reverse=True)
    assert all(each.gain > 0 for each in upgrades)


def test_what_int4_holds_has_that_and_nothing_more() -> None:
    upgrades = frontier_of({"m": ArrayWeight(on_the_grid())}, AUTO).upgrades
    assert upgrades[0].weights == "int4"
    assert upgrades[0].gain > 1e3 * sum(each.gain for each in upgrades[1:])


def test_other_algorithms_than_affine_have_no_compact_scales() -> None:
    found = frontier_of({"m": ArrayWeight(random_matrix())}, SYMMETRIC)
    assert found.smallest == {"m": "int4"}
    assert [each.weights for each in found.upgrades] == ["int5", "int6", "int8"]


def test_a_matrix_of_stored_blocks_stays_what_it_is() -> None:
    values, ones = np.ones((16, 32), np.uint8), np.ones((16, 1), np.float16)
    zeros = np.zeros((16, 1), np.uint8)

    def stored(start: int, stop: int) -> Grouped:
        return Grouped(values[start:stop], ones[start:stop], zeros[start:stop])

    grouped = GroupedWeight((16, 32), 32, stored)
    found = frontier_of({"m": grouped}, AUTO)
    assert found.smallest == {"m": "int4"}
    assert not found.upgrades


def test_of_matrices_that_lose_alike_the_smaller_one_is_first() -> None:
    large = on_the_grid(rows=512)
    large[::16] = random_matrix(rows=32)  # as much as the small one loses, among more bytes
    found = order(large=ArrayWeight(large), small=ArrayWeight(random_matrix(rows=32)))
    assert found == ["small", "large"]


def test_how_large_the_outputs_are_counts_for_nothing() -> None:
    """A norm that follows makes them alike, as that of Gemma 3's down projections."""
    weight = random_matrix()
    quiet, loud = frontier_of(
        {"quiet": ArrayWeight(weight), "loud": ArrayWeight(4 * weight)}, AUTO
    ).costs.values()
    assert quiet.losses == pytest.approx(loud.losses, rel=0.02)


def test_layers_that_lose_alike_lose_as_much_together_however_many_they_are() -> None:
    two, eight = (
        frontier_of({str(seed): ArrayWeight(random_matrix(seed=seed)) for seed in range(n)}, AUTO)
        for n in (2, 8)
    )
    assert two.loss(0) == pytest.approx(eight.loss(0), rel=0.1)


def test_what_is_lost_counts_by_how_much_is_read_there() -> None:
    """Two halves, of which four bits hold one; where the other is read, more is lost."""
    mixed = np.concatenate([on_the_grid(), random_matrix(seed=1)], axis=1)
    held, lost = np.ones(128, np.float32), np.ones(128, np.float32)
    held[:64], lost[64:] = 100, 100
    weight = ArrayWeight(mixed)
    found = order(held=CalibratedWeight(weight, held), lost=CalibratedWeight(weight, lost))
    assert found == ["lost", "held"]


def test_bytes_of_a_matrix_beside_it_count() -> None:
    matrix = {"m": ArrayWeight(random_matrix())}
    one, both = (
        frontier_of(matrix, AUTO, OutputProjection("m", is_untied=untied)).upgrades
        for untied in (False, True)
    )
    assert [each.extra for each in both] == [2 * each.extra for each in one]


def test_a_matrix_that_lies_turned_loses_the_same() -> None:
    matrix = random_matrix(rows=512)
    turned = TransposedWeight(ArrayWeight(np.ascontiguousarray(matrix.T)))
    one, other = (
        frontier_of({"m": weight}, AUTO).upgrades for weight in (ArrayWeight(matrix), turned)
    )
    assert one == other


def test_the_bytes_of_an_upgrade_are_those_of_the_kernels_layout() -> None:
    matrix, weights, scales = {"m": ArrayWeight(random_matrix())}, 64 * 64, 64 * 2 * 2
    five, six, eight = (each.extra for each in frontier_of(matrix, AUTO).upgrades)
    assert (five, six) == (weights // 8, weights // 8)
    assert eight == weights // 4 - 64 * 2  # int8 has scales in float16, and none of the rows
    first = frontier_of(matrix, SYMMETRIC).upgrades[0]
    assert first.extra == BITS[first.weights] * weights // 8 - weights // 2 + scales


@pytest.fixture
def frontier() -> Frontier:
    """Four matrices, of 10, 20, 30 and 40 bytes more."""
    sizes = (10, 20, 30, 40)
    upgrades = tuple(Upgrade(f"m{size}", "int8", 1.0, size) for size in sizes)
    return Frontier({f"m{size}": "int4" for size in sizes}, upgrades)


def test_plans_are_nested(frontier: Frontier) -> None:
    assert set(frontier.plan(0).values()) == {"int4"}
    assert frontier.plan(2) == {"m10": "int8", "m20": "int8", "m30": "int4", "m40": "int4"}


def test_the_last_upgrade_of_a_matrix_counts() -> None:
    upgrades = tuple(Upgrade("m", weights, 1.0, 10) for weights in ("int5", "int8"))
    found = Frontier({"m": "int4", "n": "int4"}, upgrades)
    assert [found.plan(count)["m"] for count in range(3)] == ["int4", "int5", "int8"]
    assert found.plan(2)["n"] == "int4"


def test_a_share_of_the_bytes_holds_so_many_upgrades_in_their_order(frontier: Frontier) -> None:
    assert frontier.counts([0, 0.09]) == [0]
    assert frontier.counts([0, 0.1, 0.29, 0.3, 0.5, 0.75, 1]) == [0, 1, 2, 3, 4]
    assert frontier.counts(step / 31 for step in range(1, 32)) == [0, 1, 2, 3, 4]
    assert Frontier({}, ()).counts([0, 1]) == [0]


def test_what_the_output_projection_loses_counts_in_nats() -> None:
    """A logit's error of a variance of v costs a KL divergence of about 0.6 * v / 2."""
    weight = CalibratedWeight(ArrayWeight(random_matrix(rows=512)), np.full(64, 25.0, np.float32))
    logits = frontier_of({"m": weight}, AUTO, OutputProjection("m"))
    errors = affine(random_matrix(rows=512), 32).weights() - random_matrix(rows=512)
    variance = 25.0 * float(np.square(errors).sum(axis=1).mean())
    assert 0.8 < logits.loss(0) / (0.3 * variance) < 1.0  # eight bits lose some too
    assert logits.loss(len(logits.upgrades)) == 0.0


def test_logits_whose_scale_is_unknown_are_taken_for_those_of_other_models() -> None:
    weight = random_matrix(rows=512)
    known = CalibratedWeight(ArrayWeight(weight), np.full(64, 150 / 64, np.float32))
    loud = CalibratedWeight(ArrayWeight(weight), np.full(64, 150.0, np.float32))
    losses = [
        frontier_of({"m": each}, AUTO, OutputProjection("m", is_scaled=scaled)).loss(0)
        for each, scaled in ((known, False), (loud, True), (ArrayWeight(weight), False))
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=0.1)


def test_what_an_embedding_loses_as_an_input_is_added_to_its_output_projection() -> None:
    matrices = {"m": ArrayWeight(random_matrix()), "head": ArrayWeight(random_matrix(seed=1))}
    alone = frontier_of({"head": matrices["head"]}, AUTO, OutputProjection("head"))
    beside = frontier_of(matrices, AUTO, OutputProjection("head"))
    layer, head = (beside.costs[name].losses[0] for name in matrices)
    assert head - alone.costs["head"].losses[0] == pytest.approx(layer, rel=0.05)


def test_a_frontier_above_some_weights_has_these_everywhere_and_grows_from_there() -> None:
    matrices = {"lost": ArrayWeight(random_matrix()), "held": ArrayWeight(on_the_grid())}
    found = frontier_of(matrices, AUTO)
    above = found.above("int5")
    assert set(above.smallest.values()) == {"int5"}
    assert {each.weights for each in above.upgrades} <= {"compact6", "int6", "int8"}
    assert above.loss(0) < found.loss(0)
    assert found.above("compact4") == found
