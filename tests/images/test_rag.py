"""docs/rag.md's program against two images: a chat's and an embedder's, where both are built."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.images import docker
from tests.images.docker import CLOUD_RUN, EMBEDDINGS, PUBLISHED, READ_ONLY
from tests.support.pages import blocks_of, output_of

PROGRAM = next(block for language, block in blocks_of("rag.md") if "def search" in block)


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """The page's addresses, and where the containers have them."""
    embedder = f"{CLOUD_RUN}:{EMBEDDINGS}"
    if not docker.docker("images", "--quiet", embedder):
        pytest.fail(f"Build it first: make images RECIPE={EMBEDDINGS} TAG={EMBEDDINGS}")
    with (
        docker.cloud_run(*READ_ONLY, *PUBLISHED) as chat,
        docker.cloud_run(*READ_ONLY, *PUBLISHED, image=embedder) as embeddings,
    ):
        yield {"localhost:8080": chat.url, "localhost:8081": embeddings.url}


def test_a_question_is_answered_from_the_passage_that_it_is_about(urls: dict[str, str]) -> None:
    question, *passages, answer = output_of(
        "python", PROGRAM, urls, "How do I get online?"
    ).splitlines()
    assert question == "How do I get online?"
    assert passages[0].strip().startswith("The wireless network")
    assert "driftwood42" in answer
