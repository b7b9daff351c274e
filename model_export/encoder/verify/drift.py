"""Gate 3: how far the quantised graph drifts from the fp32 graph on the shipped text.

    mean_cosine, min_cosine    of embeddings, over all passages
    top1_agreement             share of passages with the same best label, or of queries with the
                               same best document
    max_score_difference       of scores as clients see them: behind softmax or sigmoid

What is measured is plain arrays: it knows no graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from handlers.encoder.encoder import apply_activation
from model_export.recipe import EmbeddingTolerance, ScoreTolerance
from model_export.reporting import ExportError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_drift(
    exact: NDArray[np.float32],
    quantised: NDArray[np.float32],
    tolerance: EmbeddingTolerance | ScoreTolerance,
    *,
    activation: str,
    documents: int,
) -> dict[str, Any]:
    """The gate's figures. Rows are [inputs, width]. Raises ExportError beyond a limit."""
    if isinstance(tolerance, EmbeddingTolerance):
        return _check_cosines(exact, quantised, tolerance)
    return _check_scores(
        apply_activation(exact, activation),
        apply_activation(quantised, activation),
        tolerance,
        documents,
    )


def _check_cosines(
    exact: NDArray[np.float32], quantised: NDArray[np.float32], tolerance: EmbeddingTolerance
) -> dict[str, Any]:
    lengths = np.linalg.norm(exact, axis=1) * np.linalg.norm(quantised, axis=1)
    cosines = (exact * quantised).sum(axis=1) / lengths
    mean, least = float(cosines.mean()), float(cosines.min())
    _refuse(not mean >= tolerance.min_mean_cosine, "mean cosine", mean, "min_mean_cosine")
    _refuse(not least >= tolerance.min_cosine, "least cosine", least, "min_cosine")
    return {"inputs": len(exact), "mean_cosine": mean, "min_cosine": least}


def _check_scores(
    exact: NDArray[np.float64],
    quantised: NDArray[np.float64],
    tolerance: ScoreTolerance,
    documents: int,
) -> dict[str, Any]:
    difference = float(np.abs(exact - quantised).max())
    choices = [rows.reshape(-1, documents or rows.shape[1]) for rows in (exact, quantised)]
    agreement = float(np.mean(choices[0].argmax(axis=1) == choices[1].argmax(axis=1)))
    _refuse(
        not agreement >= tolerance.min_top1_agreement,
        "top-1 agreement",
        agreement,
        "min_top1_agreement",
    )
    _refuse(
        not difference <= tolerance.max_score_difference,
        "largest difference of a score",
        difference,
        "max_score_difference",
    )
    return {
        "inputs": len(exact),
        "top1_agreement": agreement,
        "max_score_difference": difference,
    }


def _refuse(failed: bool, what: str, figure: float, limit: str) -> None:
    if failed:
        raise ExportError(
            f"Gate 3 failed: the quantised graph's {what} to the fp32 graph is {figure:.5f}, "
            f"beyond the recipe's {limit}. Choose a [precision] that keeps more, or another limit."
        )
