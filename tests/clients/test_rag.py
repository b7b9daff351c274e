"""Runs every block of docs/rag.md as it stands there, but for the servers' addresses.

The chat model and the embeddings have their real weights. The ranker's cannot be had without a hub:
it is a random one, which puts documents into some order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from handlers.artifact.manifest import Task
from tests.support.pages import blocks_of, output_of
from tests.support.servers import CloudRun, cloud_run

BLOCKS = blocks_of("rag.md")
PROGRAM = next(block for language, block in BLOCKS if "def search" in block)

# How the passage begins that is to be found.
PASSAGES = {
    "How do I get online?": "The wireless network",
    "When can we eat after waking up?": "Breakfast",
    "May I drink at this sink?": "The tap water",
    "Could my puppy sleep with me?": "Dogs",
    "I feel sick, who helps?": "Doctor Meyer",
    "How would one catch a late flight?": "The last bus",
}
# What the answer has to repeat of it. Not of every passage: the chat model is a small one.
FACTS = {
    "How do I get online?": "driftwood42",
    "When can we eat after waking up?": "from 7:30 to 10:00",
    "May I drink at this sink?": "safe",
}


@pytest.fixture(scope="module")
def urls(
    server: CloudRun,
    embeddings_artifact: Path,
    tiny_encoders: dict[Task, Path],
    directory: Path,
) -> Iterator[dict[str, str]]:
    """The page's addresses, and where this run has them."""
    with (
        cloud_run(embeddings_artifact, directory) as embedder,
        cloud_run(tiny_encoders["text-ranking"], directory) as ranker,
    ):
        yield {
            "localhost:8080": server.url,
            "localhost:8081": embedder.url,
            "localhost:8082": ranker.url,
        }


@pytest.fixture(scope="module")
def told(urls: dict[str, str]) -> dict[str, tuple[list[str], str]]:
    """The passages, the best first, and the answer that the page's program prints to a question."""
    printed = output_of("python", PROGRAM, urls, *PASSAGES)
    found = re.findall(r"^(\S.*\?)\n((?:  .*\n)+)=> (.*(?:\n- .*)*)$", printed, re.MULTILINE)
    return {
        question: ([line.strip() for line in passages.splitlines()], answer)
        for question, passages, answer in found
    }


@pytest.mark.parametrize(("language", "block"), BLOCKS, ids=range(1, len(BLOCKS) + 1))
def test_a_block_runs_and_prints_an_answer(urls: dict[str, str], language: str, block: str) -> None:
    printed = output_of(language, block, urls)
    assert printed.strip()
    assert '"error"' not in printed


@pytest.mark.parametrize("question", PASSAGES)
def test_a_passage_is_found_by_its_meaning_alone(
    told: dict[str, tuple[list[str], str]], question: str
) -> None:
    passages, _ = told[question]
    assert passages[0].startswith(PASSAGES[question])
    assert not words(passages[0]) & words(question)


@pytest.mark.parametrize("question", FACTS)
def test_the_answer_says_what_only_its_passage_knows(
    told: dict[str, tuple[list[str], str]], question: str
) -> None:
    passages, answer = told[question]
    assert FACTS[question] in passages[0]
    assert FACTS[question] in answer


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))
