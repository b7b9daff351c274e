"""Reports what was measured, as tables for people and as one JSON document for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import Any

from bench.goals import MODEL, OURS, REFERENCES, Medians, judge, ratio, ratios
from bench.machine import commit
from bench.rounds import Entry

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Metric:
    """One row of the card."""

    title: str
    unit: str
    more_is_better: bool = False


METRICS = {
    "cold_start_ms": Metric("cold start", "ms"),
    "first_start_ms": Metric("first start, page cache empty", "ms"),
    "first_start_read_mb": Metric("read from the disk by it", "MB"),
    "first_token_38_ms": Metric("first token after 38", "ms"),
    "first_token_512_ms": Metric("first token after 512", "ms"),
    "first_token_1800_ms": Metric("first token after 1800", "ms"),
    "decode_1_tok_s": Metric("decode, 1 stream", "tok/s", more_is_better=True),
    "decode_4_tok_s": Metric("decode, 4 streams", "tok/s", more_is_better=True),
    "decode_8_tok_s": Metric("decode, 8 streams", "tok/s", more_is_better=True),
    "peak_rss_mb": Metric("peak memory", "MB"),
    "installed_mb": Metric("installed, with the model", "MB"),
}


def document(
    entries: Sequence[Entry], machine: Mapping[str, Any], model_mb: float, skipped: Sequence[str]
) -> Document:
    """The whole run: the last line that `make bench` prints. `machine` has the settings in it."""
    peers = {entry.peer.name: _entry(entry) for entry in entries}
    medians = medians_of(peers) | {MODEL: {"first_start_read_mb": model_mb}}
    return {
        "benchmark": "kindling and its peers",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": machine,
        "model_mb": round(model_mb, 1),
        "skipped": list(skipped),
        "peers": peers,
        "ratios": ratios(medians),
        "goals": judge(medians),
    }


def medians_of(peers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The medians of each of a document's peers."""
    return {
        name: {metric: figures["median"] for metric, figures in peer["figures"].items()}
        for name, peer in peers.items()
    }


def _entry(entry: Entry) -> dict[str, Any]:
    """A peer that failed keeps what it yielded before, and says why it yielded no more."""
    return {
        "weights": entry.peer.weights,
        "command": entry.server.line if entry.server else None,
        "versions": entry.versions,
        "failed": entry.failed,
        "figures": {name: summary(entry.samples[name]) for name in METRICS if entry.samples[name]},
    }


def summary(samples: Sequence[float]) -> dict[str, float]:
    """Rounded to what the machine's noise leaves meaningful."""
    figures = {"median": median(samples), "min": min(samples), "max": max(samples)}
    return {name: round(value, 1) for name, value in figures.items()} | {"samples": len(samples)}


def card(document: Document) -> str:
    """A table of medians with their least and greatest, a column for each peer."""
    peers: dict[str, Any] = document["peers"]
    lines = [f"{'median (least-greatest)':38}" + "".join(f"{name:>22}" for name in peers)]
    for name, metric in METRICS.items():
        cells = (spread(peer["figures"].get(name)) for peer in peers.values())
        lines.append(f"{f'{metric.title}, {metric.unit}':38}" + "".join(f"{c:>22}" for c in cells))
    lines += [f"{name} failed at {p['failed']}" for name, p in peers.items() if p["failed"]]
    return "\n".join(lines + [f"skipped: {reason}" for reason in document["skipped"]])


def spread(figures: Mapping[str, float] | None) -> str:
    """A median and its range: 812 (790-1034)."""
    if figures is None:
        return "-"
    return f"{figures['median']:.0f} ({figures['min']:.0f}-{figures['max']:.0f})"


def goals_table(document: Document) -> str:
    """Every goal, what was measured, and whether that is enough."""
    verdict = {True: "met", False: "NOT met", None: "not measured"}
    lines = [f"{'goal':64}{'wanted':>12}{'measured':>10}"]
    for goal in document["goals"]:
        title = f"{goal['entry']}: {METRICS[goal['metric']].title}, to {goal['against']}"
        measured = "-" if goal["ratio"] is None else f"{goal['ratio']:.2f}x"
        lines.append(f"{title:64}{goal['wanted']:>12}{measured:>10}  {verdict[goal['met']]}")
    return "\n".join(lines)


def row(document: Document) -> str:
    """This run as a row of BENCHMARKS.md."""
    machine = document["machine"]
    medians = medians_of(document["peers"])
    name = f"{machine['cpu']}, {' '.join(machine['flags'])}, {machine['threads']} threads"
    cells = [_cell(medians, OURS[1], "cold_start_ms")]
    cells += [_cell(medians, OURS[0], metric) for metric in METRICS]
    return f"| {' | '.join([document['date'][:10], document['commit'], name, *cells])} |"


def _cell(medians: Medians, ours: str, metric: str) -> str:
    """A cell such as 691 / 812 (0.85x) / 3266 (0.21x): ours, and each reference with its ratio."""
    mine = medians.get(ours, {}).get(metric)
    parts = ["-" if mine is None else f"{mine:.0f}"]
    for theirs in REFERENCES:
        measured = ratio(medians, ours, metric, theirs)
        other = medians.get(theirs, {}).get(metric)
        parts.append("-" if measured is None else f"{other:.0f} ({measured:.2f}x)")
    return " / ".join(parts)
