"""What was measured, as a card for people and as one line of JSON for programs."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from bench.servers import ROOT, Server

Samples = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the card."""

    title: str
    unit: str
    more_is_better: bool = False


METRICS = {
    "cold_start_ms": Metric("process start to first token", "ms"),
    "first_token_38_ms": Metric("first token, prompt of 38 tokens", "ms"),
    "first_token_512_ms": Metric("first token, prompt of 512 tokens", "ms"),
    "decode_1_tok_s": Metric("decode, 1 stream", "tok/s", more_is_better=True),
    "decode_4_tok_s": Metric("decode, 4 streams together", "tok/s", more_is_better=True),
    "decode_8_tok_s": Metric("decode, 8 streams together", "tok/s", more_is_better=True),
    "peak_rss_mb": Metric("peak memory", "MB"),
}
PACKAGES = ("onnxruntime", "torch", "transformers", "fastapi", "functions-framework", "uvicorn")
# Instruction sets that decide how fast a matrix product of a given type can be.
CPU_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


def card(ours: Samples, theirs: Samples) -> str:
    """A table: medians with their least and greatest, and how many times better ours is."""
    lines = [f"{'median (least-greatest)':42}{'Kindling':>24}{'plain':>24}{'ratio':>9}"]
    for name, metric in METRICS.items():
        title = f"{metric.title}, {metric.unit}"
        figures = f"{spread(ours[name]):>24}{spread(theirs[name]):>24}"
        lines.append(f"{title:42}{figures}{ratio(name, ours, theirs):>8.1f}x")
    return "\n".join(lines)


def row(ours: Samples, theirs: Samples, machine: Mapping[str, Any]) -> str:
    """This run as a row of BENCHMARKS.md."""
    cells = [
        f"{median(ours[name]):.0f} / {median(theirs[name]):.0f} ({ratio(name, ours, theirs):.1f}x)"
        for name in METRICS
    ]
    name = f"{machine['cpu']}, {' '.join(machine['flags'])}, {machine['threads']} threads"
    return f"| {' | '.join([f'{datetime.now(UTC):%Y-%m-%d}', commit(), name, *cells])} |"


def document(
    ours: Samples,
    theirs: Samples,
    servers: tuple[Server, Server],
    machine: Mapping[str, Any],
) -> dict[str, Any]:
    """The whole run; the last line that `make bench` prints."""
    return {
        "benchmark": "kindling against the plain way",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine,
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "commands": {server.name: server.line for server in servers},
        "kindling": {name: summary(ours[name]) for name in METRICS},
        "plain": {name: summary(theirs[name]) for name in METRICS},
        "times_better": {name: round(ratio(name, ours, theirs), 2) for name in METRICS},
    }


def ratio(name: str, ours: Samples, theirs: Samples) -> float:
    """How many times better the median of ours is."""
    mine, other = median(ours[name]), median(theirs[name])
    return mine / other if METRICS[name].more_is_better else other / mine


def spread(samples: Sequence[float]) -> str:
    """As in 812 (790-1034)."""
    return f"{median(samples):.0f} ({min(samples):.0f}-{max(samples):.0f})"


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Rounded to what the machine's noise leaves meaningful."""
    figures = {"median": median(samples), "min": min(samples), "max": max(samples)}
    return {name: round(value, 1) for name, value in figures.items()} | {"samples": len(samples)}


def commit() -> str:
    """The revision that was measured; "+" when files differ from it."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def describe_machine(threads: int) -> dict[str, Any]:
    """Taken before the run, so that the load is other programs'.

    The CPU is described as in proc_cpuinfo(5): by "flags" on x86, by "Features" on ARM.
    """
    pairs = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    present = fields.get("flags", fields.get("Features", "")).split()
    return {
        "cpu": fields.get("model name", platform.machine()),
        "flags": [flag for flag in CPU_FLAGS if flag in present],
        "threads": threads,
        "load_average": round(os.getloadavg()[0], 2),
    }
