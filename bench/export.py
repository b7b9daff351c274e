"""Exports the same folder by us, by llama.cpp and by onnxruntime-genai: time, memory, size.

    make bench ARGS="export NAME ... [--serve]"     (or: python -m bench.export NAME ...)

NAME is a shipped recipe, whose model is written with random weights (bench.random_model); time and
memory do not depend on them. A recipe whose source is a package is exported from it, too. All are
run one after the other, each with the weights out of the page cache. Folders and our artefact stay
in build/export, a peer's result is deleted once it is measured. `--before DIR` measures another
revision of ours beside, which DIR has checked out. A program that fails, or passes a limit, is in
the result with its reason. Progress goes to standard error, a table for BENCHMARKS.md and as the
last line one JSON object to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.export_served import serve
from bench.export_stages import stages_of
from bench.exporters import GENAI, LLAMA_CPP, Exporter, kindling
from bench.machine import commit, describe_machine
from bench.prepare import NotRunnable
from bench.processes import available_mb
from bench.rounds import FAILURES, say
from bench.servers import ROOT, python
from bench.watched import Command, Limits, Usage, run
from handlers.cpus import available_cpus
from model_export.recipe import PackageSource
from model_export.recipe_loader import load_recipe

DIRECTORY = ROOT / "build" / "export"
LEFT_MB = 2_000
"""Memory that no program may take, so that the machine lives on."""
FREE_DISK_GB = 25.0

COLUMNS = {
    "seconds": "s",
    "cpu_seconds": "CPU s",
    "peak_mb": "peak memory, MB",
    "peak_own_mb": "without mapped files, MB",
    "artefact_mb": "artefact, MB",
}
"""An export's figures, and what the table calls them."""
SERVED = {
    "cold_start_ms": "its first answer, ms",
    "decode_1_tok_s": "1 stream, tok/s",
    "peak_rss_mb": "its server's peak memory, MB",
}
"""Figures of the artefact as it is served."""


def main(arguments: list[str]) -> None:
    """Measures each model with each exporter, and prints a table and one JSON object."""
    options = _parser().parse_args(arguments)
    # What is running has a session of its own: it would go on alone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    machine = describe_machine(available_cpus())
    if machine["load_average"] > 0.5:
        say(f"warning: this machine is busy (load average {machine['load_average']})")
    rows = [row for name in options.names for row in rows_of(name, options)]
    print(table(rows))
    document = {"benchmark": "export", "commit": commit(), "machine": machine, "rows": rows}
    print(json.dumps(document))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=export", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="a shipped recipe's name")
    parser.add_argument("--serve", action="store_true", help="serve and ask what we exported")
    parser.add_argument("--only", nargs="+", metavar="EXPORTER", help="none but these")
    parser.add_argument("--before", type=Path, help="a working tree of another revision of ours")
    parser.add_argument("--memory-gb", type=float, help="for each; default: what is free, less 2")
    parser.add_argument(
        "--free-gb",
        type=float,
        default=FREE_DISK_GB,
        help="end a program that leaves less of the disk (default: %(default)s)",
    )
    return parser


def exporters_of(name: str, before: Path | None) -> Iterator[Exporter]:
    """Yields the ways to export a recipe's model."""
    yield kindling()
    if isinstance(load_recipe(name).source, PackageSource):
        yield kindling("kindling-package", recipe=name)
    if before is not None:
        yield kindling("kindling-before", before.resolve())
    yield from (LLAMA_CPP, GENAI)


def rows_of(name: str, options: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Yields one model's rows, one for each exporter."""
    folder = DIRECTORY / name
    today = datetime.now(tz=UTC).date().isoformat()
    limits = Limits(free_disk_mb=options.free_gb * 1e3)
    if not (folder / "recipe.toml").is_file():
        say(f"{name}: random weights")
        command = Command(python("-m", "bench.random_model", name, str(folder)))
        failed = run(command, folder / "random_model.log", limits).failed
        if failed:
            yield {"model": name, "exporter": "none", "date": today, "failed": failed, "stages": {}}
            return
    for exporter in exporters_of(name, options.before):
        if options.only and exporter.name not in options.only:
            continue
        say(f"{name}: {exporter.name}")
        memory = options.memory_gb * 1e3 if options.memory_gb else available_mb() - LEFT_MB
        row: dict[str, object] = {"model": name, "exporter": exporter.name, "date": today}
        row["load_average"] = round(os.getloadavg()[0], 2)
        row |= measure(exporter, folder, replace(limits, memory_mb=memory))
        if options.serve and exporter.name == "kindling" and not row["failed"]:
            say(f"{name}: serve")
            row |= _served(exporter.result(folder))
        if exporter.name != "kindling":
            shutil.rmtree(folder / exporter.name, ignore_errors=True)
        say(json.dumps(row))
        yield row


def measure(exporter: Exporter, folder: Path, limits: Limits) -> dict[str, object]:
    """Runs an exporter's programs one after the other, in an empty folder."""
    out = folder / exporter.name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    whole, stages = Usage(), {}
    try:
        exporter.prepare()
        forget(folder / "source")
        for stage, command in exporter.commands(folder).items():
            log = folder / f"{exporter.name}-{stage}.log"
            usage = run(command, log, limits)
            stages[stage] = usage.seconds
            if exporter.reports:
                stages = stages_of(log.read_text(errors="replace"), usage.seconds)
            whole.add(usage)
            if whole.failed:
                break
    except NotRunnable as error:
        whole.failed = str(error)
    figures = {key: _rounded(value) for key, value in asdict(whole).items()}
    size = 0 if whole.failed else _size_mb(exporter.result(folder))
    rounded = {stage: round(seconds, 1) for stage, seconds in stages.items()}
    return figures | {"artefact_mb": size, "stages": rounded}


def forget(directory: Path) -> None:
    """Has the kernel drop a folder's files from the page cache, for which nobody has to be root."""
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def table(rows: Iterable[dict[str, object]]) -> str:
    """The results as a table in Markdown."""
    rows = list(rows)
    columns = COLUMNS | (SERVED if any("peak_rss_mb" in row for row in rows) else {})
    names = ["model", "exporter", *columns.values(), "s by stage"]
    lines = [f"| {' | '.join(names)} |", "|---|---" + "|---:" * len(columns) + "|---|"]
    for row in rows:
        cells = [f"`{row['model']}`", str(row["exporter"])]
        cells += [_cell(row.get(column)) for column in columns]
        lines.append(f"| {' | '.join(cells)} | {_stages(row)} |")
    return "\n".join(lines)


def _stages(row: dict[str, object]) -> str:
    stages: Any = row["stages"]
    words = [f"{stage} {seconds:,.0f}" for stage, seconds in stages.items()]
    if row.get("failed"):
        words.append(f"failed: {row['failed']}")
    return ", ".join(words)


def _cell(figure: object) -> str:
    return f"{figure:,.0f}" if isinstance(figure, (int, float)) and figure else ""


def _rounded(value: object) -> object:
    return round(value, 1) if isinstance(value, float) else value


def _served(artefact: Path) -> dict[str, object]:
    try:
        return dict(serve(artefact))
    except FAILURES as error:
        return {"not_served": str(error)}


def _size_mb(path: Path) -> float:
    files = path.rglob("*") if path.is_dir() else [path]
    return round(sum(file.stat().st_size for file in files if file.is_file()) / 1e6, 1)


if __name__ == "__main__":
    main(sys.argv[1:])
