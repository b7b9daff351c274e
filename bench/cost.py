"""Computes what a million tokens cost on each cloud, by prices.toml.

Of a process that is busy: its start, idle time and the charge for each request are not in it.
Knows nothing of how the speeds were measured; called by bench/sweep.py.
"""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path

from handlers.cpus import LAMBDA_MB_PER_CPU

PRICES = Path(__file__).with_name("prices.toml")
# Cloud Run's least memory, and the steps in which one would raise it.
LEAST_GIB, GIB_STEP = 0.5, 0.25


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars a second; `date` as in the file."""

    date: str
    lambda_gb: float
    cloud_run_vcpu: float
    cloud_run_gib: float

    @classmethod
    def load(cls, path: Path = PRICES) -> Prices:
        """Reads the table."""
        table = tomllib.loads(path.read_text())
        cloud_run = table["cloud_run"]
        prices = table["lambda"]["gb_second"], cloud_run["vcpu_second"], cloud_run["gib_second"]
        return cls(str(table["date"]), *prices)

    def lambda_second(self, cpus: int, peak_mb: float) -> float:
        """The price of a second with the least memory that has so many CPUs and holds the process.

        Lambda's GB is of 1024 MB, and its MB of 2**20 bytes.
        """
        memory = max(cpus * LAMBDA_MB_PER_CPU, math.ceil(peak_mb * 1e6 / 2**20))
        return memory / 1024 * self.lambda_gb

    def cloud_run_second(self, cpus: int, peak_mb: float) -> float:
        """The price of a second of so many CPUs and the memory that holds the process."""
        steps = math.ceil(peak_mb * 1e6 / 2**30 / GIB_STEP)
        memory = max(LEAST_GIB, steps * GIB_STEP)
        return cpus * self.cloud_run_vcpu + memory * self.cloud_run_gib


def per_million(dollars_a_second: float, tokens_a_second: float) -> float:
    """Dollars for a million tokens."""
    return dollars_a_second / tokens_a_second * 1e6
