"""Runs every block of docs/clients.md as it stands there, but for the server's address."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.servers import CloudRun

PAGE = Path(__file__).parent.parent.parent / "docs" / "clients.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
PROGRAMS = {"python": [sys.executable, "-c"], "sh": ["sh", "-c"]}
# Whatever is not on this machine is asked of a proxy that nobody runs.
ALONE = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
ALONE |= {"NO_PROXY": "localhost,127.0.0.1"}


@pytest.mark.parametrize(("language", "block"), BLOCKS, ids=range(1, len(BLOCKS) + 1))
def test_a_block_runs_and_prints_an_answer(server: CloudRun, language: str, block: str) -> None:
    address = server.url.removeprefix("http://")
    assert "localhost:8080" in block
    ended = subprocess.run(
        [*PROGRAMS[language], block.replace("localhost:8080", address)],
        env=os.environ | ALONE | {name.lower(): value for name, value in ALONE.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()
    assert '"error"' not in ended.stdout
