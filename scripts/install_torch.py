"""Installs torch into this Python as a CPU build. Run by the Makefile.

On Linux the torch of the default package index brings gigabytes of CUDA that an export never uses.
So pip is first asked, by a dry run that reads metadata only, which build it would take. A CPU build
(a pip that is set up for it, a Mac, some ARM machines) is installed as it is; in any other case
torch comes from PyTorch's index of CPU builds. Its own dependencies are pinned in requirements/.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
CUDA_PACKAGE = re.compile(r"(nvidia|cuda|triton)\b", re.IGNORECASE)
PIN = Path(__file__).resolve().parent.parent / "requirements" / "torch.txt"


def main() -> None:
    """Installs what requirements/torch.txt pins, or says in pip's words why that failed."""
    options = index_options(pip_report(pinned_torch()))
    if options is None:
        return
    where = f" from {CPU_INDEX}" if options else ""
    print(f"      {pinned_torch()}, a CPU build{where}", flush=True)
    installed = subprocess.run([*pip("install"), *options, pinned_torch()], check=False)
    sys.exit(installed.returncode)


def pinned_torch() -> str:
    """`torch==...`: in a file of its own, so that only a change of it installs torch anew."""
    return PIN.read_text().strip()


def pip_report(requirement: str) -> dict[str, Any] | None:
    """Asks pip what it would install (https://pip.pypa.io/en/stable/reference/installation-report/).

    None when pip finds nothing that fits, or fails otherwise; its own words are passed on.
    """
    command = [*pip("install"), "--dry-run", "--report", "-", requirement]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        print(answer.stderr, end="", file=sys.stderr)
        return None
    report: dict[str, Any] = json.loads(answer.stdout)
    return report


def index_options(report: dict[str, Any] | None) -> list[str] | None:
    """pip's options for a CPU build; None when the pinned torch is installed already."""
    if report is None:
        return ["--index-url", CPU_INDEX]
    if not report["install"]:
        return None
    requires = report["install"][0]["metadata"].get("requires_dist", [])
    needs_cuda = any(CUDA_PACKAGE.match(requirement) for requirement in requires)
    return ["--index-url", CPU_INDEX] if needs_cuda else []


def pip(verb: str) -> list[str]:
    """A quiet pip that installs no dependencies and still shows its errors."""
    return [sys.executable, "-m", "pip", verb, "-qq", "--no-deps", "--disable-pip-version-check"]


if __name__ == "__main__":
    main()
