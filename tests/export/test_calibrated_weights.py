"""A weight remembers how large its inputs were, through what the passes make of it."""

from __future__ import annotations

import numpy as np
import pytest

from model_export.grouped_weights import Grouped, GroupedWeight
from model_export.quantize.quantized_tensors import quantized_tensors
from model_export.weights import (
    ArrayWeight,
    CalibratedWeight,
    ComputedWeight,
    EntryWeight,
    Floats,
    ReshapedWeight,
    SlicedWeight,
    StackedWeight,
    TransposedWeight,
    Weight,
    importance_of,
    reads_by_rows,
    transposed,
)

ROWS, INPUTS = 6, 4
IMPORTANCE = np.array([1, 2, 3, 4], np.float32)


def plain() -> ArrayWeight:
    return ArrayWeight(np.random.default_rng(0).normal(size=(ROWS, INPUTS)).astype(np.float32))


def measured(importance: Floats = IMPORTANCE) -> CalibratedWeight:
    return CalibratedWeight(plain(), importance)


def test_a_calibrated_weight_is_read_as_the_weight_that_it_is() -> None:
    weight = measured()
    assert weight.shape == (ROWS, INPUTS)
    assert np.array_equal(weight.read(), plain().array)
    assert np.array_equal(weight.read(2, 5), plain().array[2:5])


@pytest.mark.parametrize(
    "weight",
    [
        measured(),
        TransposedWeight(measured()),
        transposed(TransposedWeight(measured())),
        SlicedWeight(measured(), 1, 3),
        ReshapedWeight(measured(), (ROWS, INPUTS)),
        StackedWeight((measured(), SlicedWeight(measured(), 0, 2))),
        TransposedWeight(
            StackedWeight((measured(), TransposedWeight(TransposedWeight(measured()))))
        ),
    ],
)
def test_the_importance_is_found_through_other_weights(weight: Weight) -> None:
    assert importance_of(weight) is IMPORTANCE


@pytest.mark.parametrize(
    "weight",
    [
        plain(),
        ReshapedWeight(measured(), (ROWS, 2, 2)),
        StackedWeight((measured(), plain())),
        StackedWeight((measured(), measured(IMPORTANCE[:3]))),
        EntryWeight(measured(), 0),
        ComputedWeight((ROWS, INPUTS), plain().read),
    ],
)
def test_a_weight_that_is_not_wholly_measured_has_no_importance(weight: Weight) -> None:
    assert importance_of(weight) is None


def test_parts_that_were_measured_apart_have_the_mean() -> None:
    found = importance_of(StackedWeight((measured(), measured(3 * IMPORTANCE))))
    assert found is not None
    assert found.dtype == np.float32
    assert np.array_equal(found, 2 * IMPORTANCE)


def test_a_calibrated_weight_is_read_by_rows_where_its_weight_is() -> None:
    assert reads_by_rows(measured())
    whole = ComputedWeight((ROWS, INPUTS), plain().read)
    assert not reads_by_rows(CalibratedWeight(whole, IMPORTANCE))


def test_blocks_of_the_file_are_kept_though_their_inputs_were_measured() -> None:
    source = np.random.default_rng(0)
    values = source.integers(0, 16, (16, 32), dtype=np.uint8)
    scales = source.uniform(0.01, 0.1, (16, 1)).astype(np.float16)
    zeros = np.full((16, 1), 8, np.uint8)

    def stored(start: int, stop: int) -> Grouped:
        return Grouped(values[start:stop], scales[start:stop], zeros[start:stop])

    grouped = GroupedWeight((16, 32), 32, stored)
    calibrated = CalibratedWeight(grouped, np.arange(32, dtype=np.float32))
    for found, expected in zip(
        quantized_tensors(calibrated, 4, 32, "affine"),
        quantized_tensors(grouped, 4, 32, "affine"),
        strict=True,
    ):
        assert found is not None
        assert expected is not None
        assert found.tobytes() == expected.tobytes()
