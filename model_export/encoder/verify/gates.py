"""Gates 1 and 2: the runtime's ids are transformers' ids, the fp32 graph's rows its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from handlers.encoder.encoder import Encoder
from handlers.encoder.request import EncoderInput
from handlers.text.tokenizer import Tokenizer
from model_export.reporting import ExportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from model_export.encoder.verify.exchange import Answer, Encoded, EncoderReference

LARGEST_ERROR = 1e-4
"""Of a row's numbers, in units of its largest where that is above 1."""
LARGEST_NEIGHBOUR = 1e-5
"""The same, for what other rows of a batch and their padding may change."""


def check_tokens(reference: EncoderReference, tokenizer: Tokenizer) -> dict[str, Any]:
    """The gate's figures. Raises ExportError at the first difference."""
    for encoded in reference.whole:
        (found,) = tokenizer.encode_all([_texts(encoded)])
        _compare(encoded, found.ids, found.type_ids)
    for limit, cut in reference.cut.items():
        for encoded in cut:
            found = tokenizer.encode_truncated(_texts(encoded), limit)
            _compare(encoded, found.ids, found.type_ids)
    pairs = sum(len(encoded.texts) == 2 for encoded in reference.whole)
    return {"texts": len(reference.whole) - pairs, "pairs": pairs}


def _texts(encoded: Encoded) -> Any:
    return encoded.texts[0] if len(encoded.texts) == 1 else encoded.texts


def _compare(encoded: Encoded, ids: list[int], type_ids: list[int]) -> None:
    if (list(ids), list(type_ids)) != (encoded.ids, encoded.type_ids):
        raise ExportError(
            f"Gate 1 failed: the runtime encodes {[text[:100] for text in encoded.texts]} as "
            f"{list(ids)[:16]} (segments {list(type_ids)[:16]}), transformers as "
            f"{encoded.ids[:16]} (segments {encoded.type_ids[:16]})."
        )


def inputs_of(reference: EncoderReference) -> list[EncoderInput]:
    """What the model is asked, as the runtime's encoder takes it."""
    return [_input(answer) for answer in reference.answers]


def _input(answer: Answer) -> EncoderInput:
    return EncoderInput(answer.encoded.ids, answer.encoded.type_ids)


def check_exact(reference: EncoderReference, encoder: Encoder) -> dict[str, Any]:
    """The gate's figures. Raises ExportError beyond the two limits."""
    inputs = inputs_of(reference)
    answers = [*reference.answers, reference.longest]
    expected = np.array([answer.row for answer in answers], np.float32)
    found = np.concatenate([encoder.encode([_input(answer)]) for answer in answers])
    alone, together = found[:-1], encoder.encode(inputs)
    error = _difference(expected, found)
    neighbours = _difference(alone, together)
    _check(answers, error, LARGEST_ERROR, "transformers'")
    _check(answers, neighbours, LARGEST_NEIGHBOUR, "its own in a batch")
    return {
        "inputs": len(answers),
        "longest_input": len(reference.longest.encoded.ids),
        "largest_error": float(error.max()),
        "largest_neighbour_error": float(neighbours.max()),
    }


def _difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """[rows]: the largest difference of a row, NaN where a number is none."""
    scale = np.maximum(np.abs(one).max(axis=1), 1.0)
    difference: NDArray[np.float32] = np.abs(one - other).max(axis=1) / scale
    return difference


def _check(
    answers: Sequence[Answer], errors: NDArray[np.float32], limit: float, whose: str
) -> None:
    worst = int(np.argmax(np.nan_to_num(errors, nan=np.inf)))
    if not errors[worst] <= limit:
        texts = answers[worst].encoded.texts
        raise ExportError(
            f"Gate 2 failed: the fp32 graph's row for {[text[:100] for text in texts]} is "
            f"{errors[worst]:.1e} away from {whose}; {limit:.0e} is allowed."
        )
