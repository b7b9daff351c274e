"""The gates between an exported encoder and its artefact, in the verifying process.

1. The runtime's tokenizer gives transformers' ids and segments, of texts and of pairs: whole, cut
   to 32 tokens, and cut to the longest that the model takes. Of a language model that ranks, of
   pairs in its prompt.
2. The fp32 graph gives transformers' rows, alone and in a batch, and of a text of the longest that
   the model takes, or of 1,024 tokens.
3. The quantised graph stays within the recipe's limits of the fp32 graph, on the shipped text:

    mean_cosine, min_cosine    of embeddings, over all passages
    top1_agreement             share of passages with the same best label, or of queries with the
                               same best document
    max_score_difference       of scores as clients see them: after softmax or sigmoid
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from handlers.artifact.manifest import Artifact, PairPrompt
from handlers.config import Settings
from handlers.encoder.encoder import Encoder, apply_activation
from handlers.encoder.request import EncoderInput
from handlers.text.pair_prompt import PairPromptBuilder
from handlers.text.tokenizer import Tokenizer
from model_export.recipe import EmbeddingTolerance, ScoreTolerance
from model_export.reporting import ExportError, Report
from model_export.verify.exchange import (
    EncodedInput,
    EncoderGates,
    EncoderReference,
    Outcome,
    OutputRow,
    VerifyRequest,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LARGEST_ERROR = 1e-4
"""Of a row's numbers, in units of its largest where that is above 1."""
LARGEST_NEIGHBOUR_ERROR = 1e-5
"""The same, for what other rows of a batch and their padding may change."""


def verify_encoder(request: VerifyRequest, gates: EncoderGates, report: Report) -> Outcome:
    """Runs the gates in order. Raises ExportError."""
    reference = gates.reference
    artifact = Artifact.open(request.quantised)
    report("verify: gate 1, ids of texts and pairs")
    tokenizer = Tokenizer.load(artifact.tokenizer)
    tokens = check_tokens(reference, tokenizer, artifact.encoder.pair_prompt)
    report(f"verify: gate 2, {len(reference.answers) + 1} rows of the fp32 graph")
    fp32 = _encoder(Artifact.open(request.fp32), reference, request.threads)
    figures = {"tokens": tokens, "exact": check_rows(reference, fp32)}
    report("verify: gate 3, drift of the quantised graph")
    inputs = _inputs_of(reference)
    figures["drift"] = check_drift(
        fp32.encode(inputs),
        _encoder(artifact, reference, request.threads).encode(inputs),
        gates.tolerance,
        activation=artifact.encoder.activation,
        documents=reference.documents,
    )
    return Outcome(figures=figures, failure=None)


def _encoder(artifact: Artifact, reference: EncoderReference, threads: int) -> Encoder:
    settings = {
        "KINDLING_THREADS": str(threads),
        "KINDLING_CONTEXT_LENGTH": str(max(16, reference.max_tokens)),
    }
    return Encoder.load(artifact, Settings.from_environ(settings))


def check_tokens(
    reference: EncoderReference, tokenizer: Tokenizer, prompt: PairPrompt | None = None
) -> dict[str, Any]:
    """Returns the figures of gate 1. Raises ExportError at the first difference."""
    for limit, inputs in ((None, reference.whole), *reference.cut.items()):
        for encoded in inputs:
            if prompt is None:
                _compare_ids(encoded, *_encoded(tokenizer, encoded, limit))
            else:
                ids = _encoded_in_prompt(tokenizer, prompt, encoded, limit)
                _compare_ids(encoded, ids, [0] * len(ids))
    pairs = sum(len(encoded.texts) == 2 for encoded in reference.whole)
    return {"texts": len(reference.whole) - pairs, "pairs": pairs}


def _encoded(
    tokenizer: Tokenizer, encoded: EncodedInput, limit: int | None
) -> tuple[list[int], list[int]]:
    if limit is None:
        (found,) = tokenizer.encode_all([_texts(encoded)])
    else:
        found = tokenizer.encode_truncated(_texts(encoded), limit)
    return found.ids, found.type_ids


def _encoded_in_prompt(
    tokenizer: Tokenizer, prompt: PairPrompt, encoded: EncodedInput, limit: int | None
) -> list[int]:
    query, document = encoded.texts
    builder = PairPromptBuilder(tokenizer, prompt, sys.maxsize, special_tokens_in_text=True)
    (found,) = builder.pairs(query, [document], lambda _: "documents", limit)
    return [int(each) for each in found.ids]


def _texts(encoded: EncodedInput) -> Any:
    return encoded.texts[0] if len(encoded.texts) == 1 else encoded.texts


def _compare_ids(encoded: EncodedInput, ids: list[int], type_ids: list[int]) -> None:
    if (list(ids), list(type_ids)) != (encoded.ids, encoded.type_ids):
        raise ExportError(
            f"Gate 1 failed: the runtime encodes {[text[:100] for text in encoded.texts]} as "
            f"{list(ids)[:16]} (segments {list(type_ids)[:16]}), transformers as "
            f"{encoded.ids[:16]} (segments {encoded.type_ids[:16]})."
        )


def _inputs_of(reference: EncoderReference) -> list[EncoderInput]:
    """Returns the inputs of all answers, as the runtime's encoder takes them."""
    return [_input(answer) for answer in reference.answers]


def _input(answer: OutputRow) -> EncoderInput:
    return EncoderInput(answer.encoded.ids, answer.encoded.type_ids)


def check_rows(reference: EncoderReference, encoder: Encoder) -> dict[str, Any]:
    """Returns the figures of gate 2. Raises ExportError beyond the two limits."""
    inputs = _inputs_of(reference)
    answers = [*reference.answers, reference.longest]
    expected = np.array([answer.row for answer in answers], np.float32)
    found = np.concatenate([encoder.encode([_input(answer)]) for answer in answers])
    alone, together = found[:-1], encoder.encode(inputs)
    error = _difference(expected, found)
    neighbours = _difference(alone, together)
    _check_errors(answers, error, LARGEST_ERROR, "transformers'")
    _check_errors(answers, neighbours, LARGEST_NEIGHBOUR_ERROR, "its own in a batch")
    return {
        "inputs": len(answers),
        "longest_input": len(reference.longest.encoded.ids),
        "largest_error": float(error.max()),
        "largest_neighbour_error": float(neighbours.max()),
    }


def _difference(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns [rows]: the largest difference of a row, NaN where a number is none."""
    scale = np.maximum(np.abs(one).max(axis=1), 1.0)
    difference: NDArray[np.float32] = np.abs(one - other).max(axis=1) / scale
    return difference


def _check_errors(
    answers: Sequence[OutputRow], errors: NDArray[np.float32], limit: float, whose: str
) -> None:
    worst = int(np.argmax(np.nan_to_num(errors, nan=np.inf)))
    if not errors[worst] <= limit:
        texts = answers[worst].encoded.texts
        raise ExportError(
            f"Gate 2 failed: the fp32 graph's row for {[text[:100] for text in texts]} is "
            f"{errors[worst]:.1e} away from {whose}; {limit:.0e} is allowed."
        )


def check_drift(
    fp32: NDArray[np.float32],
    quantised: NDArray[np.float32],
    tolerance: EmbeddingTolerance | ScoreTolerance,
    *,
    activation: str,
    documents: int,
) -> dict[str, Any]:
    """Returns the figures of gate 3, of rows [inputs, width]. Raises ExportError beyond a limit."""
    if isinstance(tolerance, EmbeddingTolerance):
        return _check_cosines(fp32, quantised, tolerance)
    return _check_scores(
        apply_activation(fp32, activation),
        apply_activation(quantised, activation),
        tolerance,
        documents,
    )


def _check_cosines(
    fp32: NDArray[np.float32], quantised: NDArray[np.float32], tolerance: EmbeddingTolerance
) -> dict[str, Any]:
    lengths = np.linalg.norm(fp32, axis=1) * np.linalg.norm(quantised, axis=1)
    cosines = (fp32 * quantised).sum(axis=1) / lengths
    mean, least = float(cosines.mean()), float(cosines.min())
    _refuse_if(not mean >= tolerance.min_mean_cosine, "mean cosine", mean, "min_mean_cosine")
    _refuse_if(not least >= tolerance.min_cosine, "least cosine", least, "min_cosine")
    return {"inputs": len(fp32), "mean_cosine": mean, "min_cosine": least}


def _check_scores(
    fp32: NDArray[np.float64],
    quantised: NDArray[np.float64],
    tolerance: ScoreTolerance,
    documents: int,
) -> dict[str, Any]:
    difference = float(np.abs(fp32 - quantised).max())
    choices = [rows.reshape(-1, documents or rows.shape[1]) for rows in (fp32, quantised)]
    agreement = float(np.mean(choices[0].argmax(axis=1) == choices[1].argmax(axis=1)))
    _refuse_if(
        not agreement >= tolerance.min_top1_agreement,
        "top-1 agreement",
        agreement,
        "min_top1_agreement",
    )
    _refuse_if(
        not difference <= tolerance.max_score_difference,
        "largest difference of a score",
        difference,
        "max_score_difference",
    )
    return {
        "inputs": len(fp32),
        "top1_agreement": agreement,
        "max_score_difference": difference,
    }


def _refuse_if(failed: bool, what: str, figure: float, limit: str) -> None:
    if failed:
        raise ExportError(
            f"Gate 3 failed: the quantised graph's {what} to the fp32 graph is {figure:.5f}, "
            f"beyond the recipe's {limit}. Choose a [precision] that keeps more, or another limit."
        )
