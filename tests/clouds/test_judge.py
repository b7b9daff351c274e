"""A language model that ranks by saying yes or no, over HTTP on both clouds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.support.exact_encoders import serve
from tests.support.servers import cloud_run, lambda_emulator
from tests.support.tiny_judge import TABLE, prompt_of, save_judge_folder, share_of_yes

QUERY = "Who lives above the sea?"
DOCUMENTS = ["A keeper lived alone.", "", "It rains in the morning, 你好 {document}"]
LONG = "the keeper counted ships, and nothing else happened; " * 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model, and its artefact beside it."""
    folder = save_judge_folder(tmp_path_factory.mktemp("judge") / "source")
    serve(folder, "text-ranking", folder.parent / "artefact", TABLE)
    return folder


@pytest.mark.parametrize("cloud", [cloud_run, lambda_emulator], ids=["cloud_run", "lambda"])
def test_both_clouds_give_the_share_of_yes(folder: Path, tmp_path: Path, cloud: object) -> None:
    told = "Find rain."
    expected = share_of_yes(folder, [prompt_of(QUERY, each, told) for each in DOCUMENTS])
    body = {"query": QUERY, "documents": DOCUMENTS, "instruction": told}
    with cloud(folder.parent / "artefact", tmp_path) as server:  # type: ignore[operator]
        results = server.post("/v1/rerank", body).json()["results"]
        long = server.post("/v1/rerank", {"query": QUERY, "documents": [LONG]})
        cut = server.post("/v1/rerank", {"query": QUERY, "documents": [LONG], "truncate": True})
    found = {each["index"]: each["relevance_score"] for each in results}
    np.testing.assert_allclose([found[n] for n in range(len(DOCUMENTS))], expected, atol=1e-5)
    assert [each["index"] for each in results] == list(np.argsort(expected)[::-1])
    assert (long.status, long.json()["error"]["param"]) == (400, "documents[0]")
    assert cut.json()["usage"]["total_tokens"] == 256
