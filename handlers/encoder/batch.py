"""What goes into one call of the session: inputs of one width, padded on the right.

Knows neither requests nor ONNX Runtime. Made by the encoder, run by the session.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Input(msgspec.Struct, frozen=True, eq=False):
    """A text, or a pair of them, as the model reads it: special tokens included."""

    ids: Sequence[int] | NDArray[np.integer]
    type_ids: Sequence[int] | NDArray[np.integer] | None = None
    """The segment of each id; None where all are of the first."""


class Batch(msgspec.Struct, frozen=True, eq=False):
    """The graph's inputs (docs/graph.md), each [rows, width]."""

    input_ids: NDArray[np.int64]
    attention_mask: NDArray[np.int64]
    token_type_ids: NDArray[np.int64]


def padded(inputs: Sequence[Input]) -> Batch:
    """A row for each input, as wide as the longest. Padding is id 0, which the mask hides."""
    shape = len(inputs), max(len(each.ids) for each in inputs)
    batch = Batch(*(np.zeros(shape, np.int64) for _ in range(3)))
    for row, each in enumerate(inputs):
        length = len(each.ids)
        batch.input_ids[row, :length] = each.ids
        batch.attention_mask[row, :length] = 1
        if each.type_ids is not None:
            batch.token_type_ids[row, :length] = each.type_ids
    return batch
