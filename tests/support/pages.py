"""The programs on a page of docs/: its blocks of Python, JavaScript and shell, run as they are.

A page's addresses are those that `make serve` has; a test has its servers elsewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parent.parent.parent
PAGES = ROOT / "docs"
# What the blocks of JavaScript import: `make test` installs it.
NODE_PACKAGES = ROOT / "build" / "clients"
# What runs a block, and the ending of the file that it stands in.
PROGRAMS = {
    "python": (sys.executable, ".py"),
    "sh": ("sh", ".sh"),
    "js": (str(Path(sys.executable).with_name("node")), ".mjs"),
}
# Whatever is not on this machine is asked of a proxy that nobody runs.
ALONE = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9"}
ALONE |= {"NO_PROXY": "localhost,127.0.0.1", "NODE_USE_ENV_PROXY": "1"}


def blocks_of(page: str) -> list[tuple[str, str]]:
    """The language and the text of each block that names one, in the page's order."""
    text = (PAGES / page).read_text(encoding="utf-8")
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def output_of(language: str, block: str, urls: Mapping[str, str], *arguments: str) -> str:
    """Runs the block with `urls` in place of the page's addresses, and returns what it prints."""
    assert any(address in block for address in urls)
    for address, url in urls.items():
        block = block.replace(address, url.removeprefix("http://"))
    interpreter, ending = PROGRAMS[language]
    with TemporaryDirectory(dir=NODE_PACKAGES if language == "js" else None) as directory:
        program = Path(directory, f"program{ending}")
        program.write_text(block, encoding="utf-8")
        ended = subprocess.run(
            [interpreter, str(program), *arguments],
            env=os.environ | ALONE | {name.lower(): value for name, value in ALONE.items()},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout
