"""Larger models, export included: time and peak memory of both halves, by size.

    python -m bench.sizes [RECIPE ...]

The weights are random (bench.random_model), which neither time nor memory depends on. Folders and
artefacts stay in build/sizes, and are used again. The last line is one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from bench.machine import commit, describe_machine
from bench.processes import rss_mb
from bench.rounds import say
from bench.servers import ROOT, Capacity, python
from bench.sweep import measure
from handlers.config import available_cpus

DIRECTORY = ROOT / "build" / "sizes"
RECIPES = ("qwen2.5-0.5b", "llama-3.2-1b")
SLOTS = 8
"""As many as bench.sweep has streams."""
CONTEXT_LENGTH = 1024
SAMPLE_SECONDS = 0.2

# Random weights choose ids that the demo's tokenizer has no text for, and text is what is timed.
SOME_TEXT = {"logit_bias": {"260": 100}}


def main(names: list[str]) -> None:
    """Measures each and prints one JSON object."""
    rows = [row(name, DIRECTORY / name) for name in names or RECIPES]
    machine = describe_machine(available_cpus())
    print(
        json.dumps({"benchmark": "sizes", "commit": commit(), "machine": machine, "models": rows})
    )


def row(name: str, directory: Path) -> dict[str, object]:
    """One model: its export, its files, its server."""
    if not (directory / "recipe.toml").is_file():
        say(f"{name}: random weights")
        subprocess.run(python("-m", "bench.random_model", name, str(directory)), check=True)
    say(f"{name}: export")
    figures: dict[str, object] = {"model": name, **export(directory)}
    artefact = directory / "model"
    files = artefact.glob("model.onnx*")
    figures |= {f"{path.name}_mb": round(path.stat().st_size / 1e6, 1) for path in files}
    say(f"{name}: serve")
    return figures | measure(artefact, Capacity(available_cpus(), SLOTS, CONTEXT_LENGTH), SOME_TEXT)


def export(directory: Path) -> dict[str, float]:
    """Seconds, and the most that the process and its children together held at once."""
    command = python(
        "-m", "model_export", str(directory / "recipe.toml"), "--out", str(directory / "model")
    )
    started = time.perf_counter()
    peak = 0.0
    with subprocess.Popen(command, cwd=ROOT) as process:
        while process.poll() is None:
            try:
                peak = max(peak, rss_mb(process.pid))
            except (FileNotFoundError, ProcessLookupError, ValueError, IndexError):
                continue  # a child has ended between its name and its file
            time.sleep(SAMPLE_SECONDS)
    if process.returncode != 0:
        raise RuntimeError(f"The export of {directory} ended with {process.returncode}.")
    seconds = time.perf_counter() - started
    return {"export_seconds": round(seconds), "export_peak_mb": round(peak)}


if __name__ == "__main__":
    main(sys.argv[1:])
