"""Runs every block of docs/clients.md as it stands there, but for the server's address."""

from __future__ import annotations

import pytest

from tests.support.pages import blocks_of, output_of
from tests.support.servers import CloudRun

BLOCKS = blocks_of("clients.md")


@pytest.mark.parametrize(("language", "block"), BLOCKS, ids=range(1, len(BLOCKS) + 1))
def test_a_block_runs_and_prints_an_answer(server: CloudRun, language: str, block: str) -> None:
    printed = output_of(language, block, {"localhost:8080": server.url})
    assert printed.strip()
    assert '"error"' not in printed
