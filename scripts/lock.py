"""Pins every dependency, with hashes, in requirements/. Run by `make lock`; --upgrade moves pins.

The largest lock is resolved first and constrains the others but one, so that one .venv can hold
all of them. They are written for Python 3.11 to 3.13 on any platform, name no index, and leave
torch out: scripts/install_torch.py installs it. Each is complete: install it with --no-deps.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Made by `make lock`. Install with: pip install --no-deps -r {name}\n"

EXPORT = ("--extra", "export", "--group", "demo")
DEV = (*EXPORT, "--extra", "remote", "--group", "deploy", "--group", "dev")
EXPORT_ALONE = (*EXPORT, "--excludes", "requirements/not-for-export.txt")
LARGEST = "requirements/bench.txt"
# The export with transformers 5, which no environment can hold beside the others.
APART = "requirements/transformers5.txt"
# What deploys needs nothing of what serves.
DEPLOY = "requirements/deploy.txt"
LOCKS = {
    LARGEST: (*DEV, "--group", "bench"),
    "requirements/dev.txt": DEV,
    "requirements/export.txt": EXPORT_ALONE,
    "requirements/runtime.lock": (),
    # The images' export stage: a new version of an adapter's package exports nothing anew.
    "requirements/exporter.lock": (
        *EXPORT_ALONE,
        "--excludes",
        "requirements/not-on-exporter.txt",
    ),
    # What an image installs: less than the packages declare, by the lists of what it leaves out.
    "requirements/lambda.lock": ("--excludes", "requirements/not-on-lambda.txt"),
    "requirements/cloudrun.lock": ("--excludes", "requirements/not-on-cloudrun.txt"),
    DEPLOY: ("--group", "pyproject.toml:deploy"),
    # What an image without a model installs besides.
    "requirements/remote.lock": (
        "--extra",
        "remote",
        "--excludes",
        "requirements/not-on-remote.txt",
    ),
    APART: ("--extra", "export-transformers5", "--group", "demo", "--group", "test-transformers5"),
}


def main(options: list[str]) -> None:
    """Writes every lock; `options` go to `uv pip compile`."""
    for name, groups in LOCKS.items():
        print(name, flush=True)
        constraints = () if name in {LARGEST, APART} else ("--constraints", LARGEST)
        compile_lock(name, [*groups, *constraints, *options])


def compile_lock(name: str, options: list[str]) -> None:
    """Resolves with uv, keeping the pins that the lock already has unless --upgrade is given."""
    command = ["uv", "pip", "compile", "--quiet", "--output-file", name]
    command += [] if name == DEPLOY else ["pyproject.toml"]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--excludes", "requirements/excluded.txt", "--no-emit-package", "torch"]
    command += ["--no-header", "--annotation-style", "line", *options]
    subprocess.run(command, cwd=ROOT, check=True)
    lock = ROOT / name
    body = lock.read_text().replace(f", -c {LARGEST}", "").replace(f"-c {LARGEST}, ", "")
    lock.write_text(HEADER.format(name=name) + body)


if __name__ == "__main__":
    main(sys.argv[1:])
