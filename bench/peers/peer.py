"""What a peer is: a way to serve the demo model that Kindling is measured beside."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from bench.installed import Footprint
from bench.servers import ROOT, Capacity, Server

RECIPE = "smollm2-135m"


class NotRunnable(RuntimeError):
    """A peer that cannot be had on this machine. The message says why; the report repeats it."""


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """One entry of the comparison."""

    name: str
    """As `make bench ARGS=...` chooses it."""
    weights: str
    """What it serves, and what else a reader must know to judge its figures."""
    server: Callable[[Capacity], Server]
    prepare: Callable[[], None] = lambda: None
    """Makes it ready once, in build/bench. Raises NotRunnable."""
    packages: tuple[str, ...] = ()
    """Distributions whose versions are written down."""
    build: Callable[[], str] | None = None
    """The version of what is no distribution. Asked only after `prepare`."""
    footprint: Callable[[], Footprint] | None = None
    """What an image of it would hold."""
    cold_only: bool = False
    """On Lambda one event is answered at a time: there is nothing to interleave."""

    def versions(self) -> dict[str, str]:
        """Of all that it runs."""
        found = {package: _version(package) for package in self.packages}
        return found | ({"build": self.build()} if self.build else {})


def run_once(target: Path, command: Sequence[str]) -> None:
    """Runs a command that makes `target`, unless it is there. Raises NotRunnable.

    In a process of its own, which takes torch with it when it ends.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NotRunnable(f"{error.filename} is not installed") from None
    if done.returncode != 0 or not target.exists():
        raise NotRunnable(f"{' '.join(command)} failed: {(done.stderr or done.stdout)[-1000:]}")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
