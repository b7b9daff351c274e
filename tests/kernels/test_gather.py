"""AffineGather: the rows of a quantised matrix as floats."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from model_export.quantize.block_quantizer import affine, compact, symmetric
from tests.kernels.every_kernel import run
from tests.support.affine_node import dequantised, gatherer

TABLE = np.random.default_rng(0).normal(size=(37, 100)).astype(np.float32)
REFUSED = onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument


@pytest.mark.parametrize(
    "blocks",
    [
        *(affine(TABLE, 32), affine(TABLE, 64), symmetric(TABLE, 4, 32), symmetric(TABLE, 8, 32)),
        *(affine(TABLE, 64, bits=5), affine(TABLE, 32, bits=6)),
        *(compact(TABLE, 32, None, 4), compact(TABLE, 64, None, 5), compact(TABLE, 32, None, 6)),
    ],
    ids=[
        *("affine", "affine 64", "symmetric", "int8", "int5 64", "int6"),
        *("compact4", "compact5 64", "compact6"),
    ],
)
def test_rows_come_as_they_are_stored(blocks: object) -> None:
    ids = np.array([[36, 0, 5], [5, 16, 15]])
    found = run(gatherer(blocks), ids)  # type: ignore[arg-type]
    assert found.shape == (2, 3, 100)
    np.testing.assert_allclose(found, dequantised(blocks)[ids], rtol=1e-6, atol=1e-7)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [-1, 37])
def test_an_id_that_is_none_is_refused(wrong: int) -> None:
    with pytest.raises(REFUSED, match="out of range"):
        run(gatherer(affine(TABLE, 32)), np.array([3, wrong]))


def test_no_ids_give_no_rows() -> None:
    assert run(gatherer(affine(TABLE, 32)), np.zeros((0,), np.int64)).shape == (0, 100)
