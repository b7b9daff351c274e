"""Measures what each precision costs and keeps: a table as in docs/log.md.

    python -m bench.precision [--recipe NAME] [--rounds 15]

Exports the recipe's model once in fp32 and quantises it once for each row. Drift is gate 3's own
measurement (model_export/verify/drift.py). Decode speed is at one stream, as a ratio to int4
affine: all graphs are loaded at once and take turns, so a machine that slows down slows all;
each figure is the median of the rounds. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir

from bench.graph_decode import Graph
from bench.machine import describe_machine
from handlers.cpus import available_cpus
from handlers.engine.session import Session
from handlers.text.tokenizer import Tokenizer
from model_export.decoder.convert import convert
from model_export.fetch.load import fetch
from model_export.fetch.stand_ins import fill
from model_export.fuse import fuse
from model_export.package import write_sidecars
from model_export.quantize import quantize
from model_export.recipe import Precision
from model_export.recipe_loader import load_decoder_recipe
from model_export.reporting import console
from model_export.save import save
from model_export.verify.corpus import evaluation_text
from model_export.verify.drift import WINDOW, Drift, compare, windows_of
from model_export.verify.exchange import EncodedText

BASE = Precision()
CANDIDATES = (
    BASE,
    Precision(block_size=64),
    Precision(lm_head="int8"),
    Precision(lm_head="int8", block_size=64),
    Precision(lm_head="int8", mixed_layers=True),
    Precision(algorithm="symmetric"),
    Precision(algorithm="symmetric", lm_head="int8"),
    Precision(algorithm="symmetric", lm_head="int8", mixed_layers=True),
    Precision(algorithm="k_quant"),
    Precision(algorithm="k_quant", lm_head="int8"),
    Precision(algorithm="k_quant", lm_head="int8", mixed_layers=True),
    Precision(weights="int8", lm_head="int4"),
    Precision(weights="int8"),
    Precision(weights="int8", block_size=64),
    Precision(weights="fp32"),
)


def main() -> None:
    """Measures every candidate and prints the table."""
    options = _parser().parse_args()
    threads = available_cpus()
    machine = describe_machine(threads)
    with tempfile.TemporaryDirectory() as scratch:
        graphs = _build(options.recipe, Path(scratch))
        drifts = _drifts(graphs, Path(scratch), threads)
        speeds = _speeds(graphs, options.rounds, threads)
        rows = [
            _row(precision, drifts[precision], speeds[precision], graphs[precision])
            for precision in CANDIDATES
        ]
    print(_table(rows))
    print(json.dumps({"benchmark": "precision", "machine": machine, "rows": rows}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--recipe", default="smollm2-135m", help="where the model comes from")
    parser.add_argument("--rounds", type=int, default=15)
    return parser


def _build(name: str, scratch: Path) -> dict[Precision, Path]:
    """A directory with model.onnx for each candidate; the tokenizer is in `scratch`."""
    report = console()
    recipe = load_decoder_recipe(name)
    loaded = fetch(recipe.source, report)
    fill(loaded.model)
    report("convert and fuse")
    exact = scratch / "exact"
    save(fuse(convert(loaded.model, recipe.export.context_length)), exact)
    write_sidecars(scratch, recipe, loaded)
    directories = {}
    for number, precision in enumerate(CANDIDATES):
        report(f"quantize to {precision.describe()}")
        directories[precision] = scratch / str(number)
        save(quantize(ir.load(exact / "model.onnx"), precision), directories[precision])
    return directories


def _drifts(
    graphs: Mapping[Precision, Path], scratch: Path, threads: int
) -> dict[Precision, Drift]:
    tokenizer = Tokenizer.load(scratch / "tokenizer.json")
    text = evaluation_text()
    plain, marked = (tokenizer.encode(text, add_special_tokens=given) for given in (False, True))
    windows = windows_of(EncodedText(text, plain, marked), WINDOW)
    exact = _session(scratch / "exact", threads)
    report, drifts = console(), {}
    for precision, directory in graphs.items():
        report(f"drift of {precision.describe()}")
        drifts[precision] = compare(exact, _session(directory, threads), windows).summary()
    return drifts


def _session(directory: Path, threads: int) -> Session:
    return Session(directory / "model.onnx", threads=threads, slots=1, capacity=WINDOW)


def _speeds(
    graphs: Mapping[Precision, Path], rounds: int, threads: int
) -> dict[Precision, tuple[float, float]]:
    """Milliseconds a token, and the ratio to BASE: over 1 is faster."""
    loaded = {p: Graph(directory / "model.onnx", 1, threads) for p, directory in graphs.items()}
    seconds: dict[Precision, list[float]] = {precision: [] for precision in loaded}
    report = console()
    for number in range(rounds + 1):
        report(f"decode, round {number} of {rounds}")
        for precision, graph in loaded.items():
            took = graph.decode_round()
            if number:  # the first round only warms up
                seconds[precision].append(took)
    base = seconds[BASE]
    return {
        precision: (
            1000 * statistics.median(took),
            statistics.median(b / t for b, t in zip(base, took, strict=True)),
        )
        for precision, took in seconds.items()
    }


def _row(
    precision: Precision, drift: Drift, speed: tuple[float, float], directory: Path
) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in directory.iterdir())
    return {
        "precision": precision.describe(),
        "megabytes": round(size / 1e6, 1),
        "kl": round(drift.kl, 4),
        "top1_agreement": round(drift.top1_agreement, 4),
        "perplexity_ratio": round(drift.perplexity_ratio, 4),
        "decode_ms": round(speed[0], 2),
        "decode_ratio": round(speed[1], 3),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| precision | size, MB | KL, nats | top-1 agreement | perplexity ratio | decode speed |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['precision']} | {row['megabytes']:.0f} | {row['kl']:.4f} "
        f"| {row['top1_agreement']:.3f} | {row['perplexity_ratio']:.3f} "
        f"| {row['decode_ratio']:.2f}x |"
        for row in rows
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
