"""A peer: a way to serve the demo model that Kindling is compared with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from bench.installed import Footprint
from bench.servers import Capacity, Server

RECIPE = "smollm2-135m"


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
        """The versions of all that it runs."""
        found = {package: _version(package) for package in self.packages}
        return found | ({"build": self.build()} if self.build else {})


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
