"""Other models end to end: exported with all gates, served, asked; time and memory, by size.

    make bench ARGS="sizes [RECIPE ...]"        (or: python -m bench.sizes [RECIPE ...])

The weights are random (bench.random_model), which neither time nor memory depends on. Folders and
artefacts stay in build/sizes, and are used again. Progress goes to standard error, a table for
BENCHMARKS.md and as the last line one JSON object to standard output.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.encoder_load import measure_encoder
from bench.exporters import export_command
from bench.machine import commit, describe_machine
from bench.rounds import say
from bench.servers import ROOT, Capacity, python
from bench.sweep import measure
from bench.watched import Limits, run
from handlers.cpus import available_cpus
from model_export.recipe_loader import load_recipe

DIRECTORY = ROOT / "build" / "sizes"
RECIPES = ("qwen2.5-0.5b", "llama-3.2-1b")
SLOTS = 8
"""As many as bench.sweep has streams."""
CONTEXT_LENGTH = 1024

COLUMNS = {
    "date": "date",
    "export_seconds": "export, s",
    "export_peak_mb": "its peak memory, MB",
    "model.onnx.data_mb": "weights, MB",
    "cold_start_ms": "process start to first answer, ms",
    "prefill_tok_s": "prompt, tok/s",
    "decode_1_tok_s": "1 stream, tok/s",
    "decode_8_tok_s": "8 streams, tok/s",
    "read_tok_s": "texts read, tok/s",
    "peak_rss_mb": "peak memory, MB",
}
"""A model's figures, and what the table calls them; a decoder has no other's, nor an encoder."""

# Random weights choose ids that the demo's tokenizer has no text for, and text is what is timed.
SOME_TEXT = {"logit_bias": {"260": 100}}


def main(names: list[str]) -> None:
    """Measures each, and prints a table and one JSON object."""
    rows = [row(name, DIRECTORY / name) for name in names or RECIPES]
    machine = describe_machine(available_cpus())
    print(table(rows))
    print(
        json.dumps({"benchmark": "sizes", "commit": commit(), "machine": machine, "models": rows})
    )


def row(name: str, directory: Path) -> dict[str, object]:
    """One model: its export, its files, its server."""
    if not (directory / "recipe.toml").is_file():
        say(f"{name}: random weights")
        subprocess.run(python("-m", "bench.random_model", name, str(directory)), check=True)
    say(f"{name}: export")
    today = datetime.now(tz=UTC).date().isoformat()
    figures: dict[str, object] = {"model": name, "date": today, **export(directory)}
    artefact = directory / "model"
    files = artefact.glob("model.onnx*")
    figures |= {f"{path.name}_mb": round(path.stat().st_size / 1e6, 1) for path in files}
    say(f"{name}: serve")
    capacity = Capacity(available_cpus(), SLOTS, CONTEXT_LENGTH)
    task = load_recipe(name).export.task
    if task == "text-generation":
        return figures | measure(artefact, capacity, SOME_TEXT)
    return figures | measure_encoder(artefact, task, capacity)


def table(rows: Sequence[dict[str, object]]) -> str:
    """The results as a table in Markdown."""
    lines = [f"| model | {' | '.join(COLUMNS.values())} |", "|---" + "|---:" * len(COLUMNS) + "|"]
    lines += [
        f"| `{row['model']}` | {' | '.join(_cell(row.get(name, '')) for name in COLUMNS)} |"
        for row in rows
    ]
    return "\n".join(lines)


def _cell(figure: object) -> str:
    return f"{figure:,.0f}" if isinstance(figure, (int, float)) else str(figure)


def export(directory: Path) -> dict[str, float]:
    """Seconds, and the most that the process and its children together held at once."""
    command = export_command(str(directory / "recipe.toml"), directory / "model")
    usage = run(command, directory / "export.log", Limits())
    if usage.failed:
        raise RuntimeError(f"The export of {directory} {usage.failed}")
    return {"export_seconds": round(usage.seconds), "export_peak_mb": round(usage.peak_mb)}


if __name__ == "__main__":
    main(sys.argv[1:])
