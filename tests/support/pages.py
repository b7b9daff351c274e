"""The programs on a page of docs/: its blocks of Python and of shell, run as they stand there.

A page's addresses are those that `make serve` has; a test has its servers elsewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PAGES = Path(__file__).parent.parent.parent / "docs"
PROGRAMS = {"python": [sys.executable, "-c"], "sh": ["sh", "-c"]}
# Whatever is not on this machine is asked of a proxy that nobody runs.
ALONE = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
ALONE |= {"NO_PROXY": "localhost,127.0.0.1"}


def blocks_of(page: str) -> list[tuple[str, str]]:
    """The language and the text of each block that names one, in the page's order."""
    text = (PAGES / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def output_of(language: str, block: str, urls: Mapping[str, str], *arguments: str) -> str:
    """What the block prints, with `urls` in place of the page's addresses. It must succeed."""
    assert any(address in block for address in urls)
    for address, url in urls.items():
        block = block.replace(address, url.removeprefix("http://"))
    ended = subprocess.run(
        [*PROGRAMS[language], block, *arguments],
        env=os.environ | ALONE | {name.lower(): value for name, value in ALONE.items()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
