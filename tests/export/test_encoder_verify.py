"""The encoder's gates stop what they are there to stop, and say at which text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from handlers.encoder.request import EncoderInput
from handlers.text.tokenizer import Tokenizer
from model_export.recipe import EmbeddingTolerance, ScoreTolerance
from model_export.reporting import ExportError
from model_export.verify.corpus import DOCUMENTS, QUERIES, passages, query_document_pairs
from model_export.verify.encoder import check_drift, check_rows, check_tokens
from model_export.verify.exchange import EncodedInput, EncoderReference, OutputRow
from tests.support.tiny_tokenizers import word_piece

ROWS = [[0.6, 0.8], [1.0, 0.0], [0.0, -30.0]]
LONGEST_ROW = [0.5, 0.5]
TOKENIZER = Tokenizer(word_piece())  # one for all: each training gives other ids
TEXTS = (("one text",), ("another, longer text",), ("a query", "a document"))


class FakeEncoder:
    """Gives ROWS by the number of ids, each number `error` off, and more beside a neighbour."""

    def __init__(
        self, error: float = 0.0, neighbour: float = 0.0, longest: Sequence[float] = LONGEST_ROW
    ) -> None:
        self.longest = longest
        self.error = error
        self.neighbour = neighbour

    def encode(self, inputs: Sequence[EncoderInput]) -> NDArray[np.float32]:
        beside = self.neighbour if len(inputs) > 1 else 0.0
        rows = [
            ROWS[len(each.ids) - 1] if len(each.ids) <= len(ROWS) else self.longest
            for each in inputs
        ]
        return np.array(rows, np.float32) + np.float32(self.error + beside)


def reference(limit: int = 64) -> EncoderReference:
    whole: list[EncodedInput] = []
    cut: list[EncodedInput] = []
    for texts in TEXTS:
        asked: Any = texts[0] if len(texts) == 1 else texts
        for into, length in ((whole, 64), (cut, limit)):
            found = TOKENIZER.encode_truncated(asked, length)
            into.append(EncodedInput(texts, list(found.ids), list(found.type_ids)))
    answers = [
        OutputRow(EncodedInput(texts, list(range(n + 1)), [0] * (n + 1)), ROWS[n])
        for n, texts in enumerate(TEXTS)
    ]
    longest = OutputRow(EncodedInput(("on and on",), [0] * 64, [0] * 64), LONGEST_ROW)
    return EncoderReference(whole, {limit: cut}, limit, answers, longest, documents=0)


def test_ids_and_segments_are_compared_whole_and_cut() -> None:
    figures = check_tokens(reference(limit=6), TOKENIZER)
    assert figures == {"texts": 2, "pairs": 1}


@pytest.mark.parametrize("which", ["whole", "cut"])
@pytest.mark.parametrize("what", ["ids", "type_ids"])
def test_one_other_id_or_segment_fails_gate_1(which: str, what: str) -> None:
    said = reference(limit=6)
    encoded = {"whole": said.whole, "cut": said.cut[6]}[which]
    getattr(encoded[2], what)[-1] += 1
    with pytest.raises(ExportError, match=r"Gate 1 failed: .*a query.*a document"):
        check_tokens(said, TOKENIZER)


def test_small_errors_pass_gate_2() -> None:
    encoder: Any = FakeEncoder(error=5e-5, neighbour=5e-6)
    figures = check_rows(reference(), encoder)
    assert (figures["inputs"], figures["longest_input"]) == (4, 64)
    assert 4e-5 < figures["largest_error"] < 6e-5
    assert 4e-6 < figures["largest_neighbour_error"] < 6e-6


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (FakeEncoder(error=2e-4), r"another.* is 2\.0e-04 away from transformers'; 1e-04"),
        (FakeEncoder(neighbour=2e-5), r"is 2\.0e-05 away from its own in a batch; 1e-05"),
        (FakeEncoder(error=float("nan")), "away from transformers'"),
        (FakeEncoder(longest=[0.5, 0.6]), r"on and on.* is 1\.0e-01 away from transformers'"),
    ],
)
def test_larger_ones_fail_it(encoder: Any, said: str) -> None:
    with pytest.raises(ExportError, match=f"Gate 2 failed: .*{said}"):
        check_rows(reference(), encoder)


def drift(quantised: list[list[float]], tolerance: Any, activation: str = "none") -> dict[str, Any]:
    exact = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    found = np.array(quantised, np.float32)
    return check_drift(exact, found, tolerance, activation=activation, documents=0)


def test_cosines_do_not_see_lengths() -> None:
    limits = EmbeddingTolerance(min_mean_cosine=0.99, min_cosine=0.99)
    figures = drift([[3.0, 0.0], [0.0, 0.1]], limits)
    assert figures == pytest.approx({"inputs": 2, "mean_cosine": 1.0, "min_cosine": 1.0})


@pytest.mark.parametrize(
    ("mean", "least", "said"),
    [(0.95, 0.0, "mean cosine .* is 0.90000"), (0.0, 0.85, "least cosine .* is 0.80000")],
)
def test_either_limit_of_cosines_fails_gate_3(mean: float, least: float, said: str) -> None:
    limits = EmbeddingTolerance(min_mean_cosine=mean, min_cosine=least)
    with pytest.raises(ExportError, match=f"Gate 3 failed: .*{said}"):
        drift([[1.0, 0.0], [0.6, 0.8]], limits)


def test_a_classifiers_labels_are_compared_row_by_row() -> None:
    limits = ScoreTolerance(min_top1_agreement=0.5, max_score_difference=3.0)
    figures = drift([[0.0, 1.0], [0.0, 2.0]], limits)
    assert figures == {"inputs": 2, "top1_agreement": 0.5, "max_score_difference": 1.0}


def test_a_rankers_documents_are_compared_query_by_query() -> None:
    limits = ScoreTolerance(min_top1_agreement=1.0, max_score_difference=9.0)
    exact = np.array([[1.0], [2.0], [5.0], [4.0]], np.float32)
    same_order = np.array([[3.0], [4.0], [2.0], [1.0]], np.float32)
    figures = check_drift(exact, same_order, limits, activation="none", documents=2)
    assert figures["top1_agreement"] == 1.0
    with pytest.raises(ExportError, match=r"top-1 agreement .* is 0\.50000"):
        check_drift(exact, same_order[[0, 1, 3, 2]], limits, activation="none", documents=2)


def test_scores_are_compared_as_clients_see_them() -> None:
    limits = ScoreTolerance(min_top1_agreement=0.0, max_score_difference=0.01)
    figures = drift([[9.0, -9.0], [-9.0, 9.0]], ScoreTolerance(0.0, 0.3), activation="softmax")
    assert figures["max_score_difference"] == pytest.approx(1 - 1 / (1 + np.exp(-1.0)), abs=1e-6)
    with pytest.raises(ExportError, match="largest difference of a score"):
        drift([[1.1, 0.0], [0.0, 2.0]], limits)


def test_the_corpus_has_passages_and_pairs_query_by_query() -> None:
    assert len(passages()) == 160
    pairs = query_document_pairs()
    assert len(pairs) == QUERIES * DOCUMENTS
    assert len({query for query, _ in pairs[:DOCUMENTS]}) == 1
    assert len({document for _, document in pairs[:DOCUMENTS]}) == DOCUMENTS
