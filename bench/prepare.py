"""Makes what a benchmark needs, once, in build/bench."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from bench.servers import ROOT


class NotRunnable(RuntimeError):
    """A peer that cannot be had on this machine. The message says why; the report repeats it."""


def run_once(
    target: Path, command: Sequence[str], environ: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Runs a command that makes `target`, unless it is there. Raises NotRunnable.

    `environ` is added to this process's own.

    In a process of its own, which takes torch with it when it ends.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | environ,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise NotRunnable(f"{error.filename} is not installed") from None
    if done.returncode != 0 or not target.exists():
        raise NotRunnable(f"{' '.join(command)} failed: {(done.stderr or done.stdout)[-1000:]}")
