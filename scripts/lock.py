"""Pins every dependency, with hashes, in requirements/. Run by `make lock`; --upgrade moves pins.

What the tests' clients in JavaScript need is pinned beside them, in tests/clients/.

The largest lock is resolved first and constrains the others, so that one .venv can hold all of
them; so it is with those of transformers 5, among themselves. They are written for Python 3.11 to
3.13 on any platform, name no index, and leave torch out: scripts/install_torch.py installs it.
Each is complete: install it with --no-deps.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Made by `make lock`. Install with: pip install --no-deps -r {name}\n"

EXPORT = ("--extra", "export", "--group", "demo")
DEV = (*EXPORT, "--extra", "remote", "--group", "deploy", "--group", "dev")
# What the packages of the demos' models declare, and the tests alone run.
NOT_FOR_EXPORT = ("--excludes", "requirements/not-for-export.txt")
EXPORT_ALONE = (*EXPORT, *NOT_FOR_EXPORT)
LARGEST = "requirements/bench.txt"
# The export with transformers 5, which no environment can hold beside the others.
APART = "requirements/transformers5.txt"
EXPORT5 = ("--extra", "export-transformers5", "--group", "demo")
# What an image leaves out of what the packages declare.
NOT_ON_EXPORTER = ("--excludes", "requirements/not-on-exporter.txt")
NOT_ON_LAMBDA = ("--excludes", "requirements/not-on-lambda.txt")
NOT_ON_CLOUDRUN = ("--excludes", "requirements/not-on-cloudrun.txt")
# What deploys needs nothing of what serves.
DEPLOY = "requirements/deploy.txt"
# Its .npmrc has the lock name no registry.
CLIENTS = "tests/clients"
LOCKS = {
    LARGEST: (*DEV, "--group", "bench"),
    "requirements/dev.txt": DEV,
    "requirements/export.txt": EXPORT_ALONE,
    "requirements/runtime.lock": (),
    # The images' export stage: a new version of an adapter's package exports nothing anew.
    "requirements/exporter.lock": (*EXPORT_ALONE, *NOT_ON_EXPORTER),
    "requirements/lambda.lock": NOT_ON_LAMBDA,
    "requirements/cloudrun.lock": NOT_ON_CLOUDRUN,
    DEPLOY: ("--group", "pyproject.toml:deploy"),
    # What an image without a model installs besides.
    "requirements/remote.lock": (
        "--extra",
        "remote",
        "--excludes",
        "requirements/not-on-remote.txt",
    ),
}
# The same of transformers 5. An image serves with the tokenizers that its model was proved with.
LOCKS5 = {
    APART: (*EXPORT5, "--group", "test-transformers5"),
    "requirements/exporter5.lock": (*EXPORT5, *NOT_FOR_EXPORT, *NOT_ON_EXPORTER),
    "requirements/lambda5.lock": NOT_ON_LAMBDA,
    "requirements/cloudrun5.lock": NOT_ON_CLOUDRUN,
}


def main(options: list[str]) -> None:
    """Writes every lock; `options` go to `uv pip compile`."""
    for locks in (LOCKS, LOCKS5):
        largest = next(iter(locks))
        for name, groups in locks.items():
            print(name, flush=True)
            constraints = () if name == largest else ("--constraints", largest)
            compile_lock(name, [*groups, *constraints, *options])
    subprocess.run(["npm", "install", "--package-lock-only"], cwd=ROOT / CLIENTS, check=True)


def compile_lock(name: str, options: list[str]) -> None:
    """Resolves with uv, keeping the pins that the lock already has unless --upgrade is given."""
    command = ["uv", "pip", "compile", "--quiet", "--output-file", name]
    command += [] if name == DEPLOY else ["pyproject.toml"]
    command += ["--universal", "--python-version", "3.11", "--generate-hashes"]
    command += ["--excludes", "requirements/excluded.txt", "--no-emit-package", "torch"]
    command += ["--no-header", "--annotation-style", "line", *options]
    subprocess.run(command, cwd=ROOT, check=True)
    lock = ROOT / name
    body = re.sub(rf", -c ({LARGEST}|{APART})|-c ({LARGEST}|{APART}), ", "", lock.read_text())
    lock.write_text(HEADER.format(name=name) + body)


if __name__ == "__main__":
    main(sys.argv[1:])
