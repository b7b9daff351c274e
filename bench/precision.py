"""Makes the table of docs/precision.md: what each precision costs, ours and llama.cpp's.

    make bench ARGS="precision NAME ... [--rounds 15]"     (or: python -m bench.precision NAME ...)

NAME is a shipped recipe, whose model bench.permuted_model writes to build/permuted unless it is
there, or a folder with a recipe.toml. Its model is exported once in each of CANDIDATES and
quantised by llama.cpp in each of its ways. Drift is that of gate 3 (bench/drift.py). The decode
speed of ours is that of one stream, as a ratio to the first candidate: all graphs are loaded at
once and take turns, so a machine that slows down slows all, and each figure is the median of the
rounds. Progress goes to standard error; a table and as the last line one JSON object to standard
output.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import onnx_ir as ir

from bench.drift import Fp32
from bench.folder_recipe import RECIPE
from bench.graph_decode import Graph
from bench.machine import commit, describe_machine
from bench.peers.llama_quantize import quantised_files
from bench.prepare import run_once
from bench.rounds import say
from bench.servers import ROOT, python
from handlers.artifact.manifest import GRAPH
from handlers.cpus import available_cpus
from model_export.decoder.calibration import InputSquares, calibration_windows, shipped_text
from model_export.decoder.export import IMPORTANCE, DecoderStrategy
from model_export.plan_search import filled, frontier_of_graph
from model_export.quantize import quantize
from model_export.recipe import BITS, Precision
from model_export.recipe_loader import load_decoder_recipe, shipped_recipes
from model_export.save import save, size_of_weights
from model_export.sizing.limits import MB
from model_export.verify.drift import Drift

DIRECTORY = ROOT / "build" / "permuted"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A precision that one may choose."""

    precision: Precision
    calibrated: bool = True
    """Whether affine blocks are chosen by what their layers read."""

    @property
    def words(self) -> str:
        """The row's name."""
        return self.precision.describe() + ("" if self.calibrated else ", not calibrated")


CANDIDATES = (
    Candidate(Precision("int4", lm_head="int8")),
    Candidate(Precision("int4", lm_head="int8"), calibrated=False),
    Candidate(Precision("int4", lm_head="int8", mixed_layers=True)),
    *(Candidate(Precision(weights=weights)) for weights in BITS),
)
"""What one chooses among, and what the calibration is worth: add others here. Decode speeds are
ratios to the first."""
BUDGETS = (0.06, 0.18, 0.3, 0.42)
"""More candidates: "auto" with budgets so far on the way from the smallest to the largest plan."""
LLAMA_CPP, KINDLING = "llama.cpp", "Kindling"
COLUMNS = {
    "megabytes": "size, MB",
    "quantiser": "by",
    "precision": "precision",
    "kl": "KL, nats",
    "top1_agreement": "top-1 agreement",
    "perplexity_ratio": "perplexity ratio",
    "decode_ratio": "decode speed",
}
FORMATS = {
    "megabytes": "{:.1f}",
    "kl": "{:.4f}",
    "top1_agreement": "{:.3f}",
    "perplexity_ratio": "{:.3f}",
    "decode_ratio": "{:.2f}x",
}


def main(arguments: list[str]) -> None:
    """Measures each model in each precision, and prints a table of each and one JSON object."""
    options = _parser().parse_args(arguments)
    machine = describe_machine(available_cpus())
    rows = [row for name in options.names for row in rows_of(name, options)]
    for name in options.names:
        print(f"### {name}\n\n{table([row for row in rows if row['model'] == name])}\n")
    print(
        json.dumps({"benchmark": "precision", "commit": commit(), "machine": machine, "rows": rows})
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make bench ARGS=precision", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="a shipped recipe, or a folder")
    parser.add_argument("--rounds", type=int, default=15, help="of decoding; 0 measures no speed")
    parser.add_argument("--only", choices=(KINDLING, LLAMA_CPP), help="none but these rows")
    return parser


def rows_of(name: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yields a model's rows."""
    folder = folder_of(name)
    base = {"model": name, "date": datetime.now(tz=UTC).date().isoformat()}
    recipe = load_decoder_recipe(str(folder / RECIPE))
    strategy = DecoderStrategy.load(recipe, say)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        directory = Path(scratch)
        inputs = InputSquares(
            calibration_windows(strategy.loaded, recipe.export.context_length, None)
        )
        fp32 = Fp32.record(strategy.loaded, directory / "fp32.logits", inputs, say)
        inputs.save(directory / IMPORTANCE)
        found: list[Iterable[dict[str, Any]]] = []
        if options.only != LLAMA_CPP:
            found.append(_ours(strategy, fp32, directory, options.rounds))
        if options.only != KINDLING:
            found.append(_llama_cpps(folder, shipped_text(strategy.loaded), fp32))
        for row in (row for rows in found for row in rows):
            say(json.dumps(row))
            yield base | row


def folder_of(name: str) -> Path:
    """Returns the folder of a model, which is made of a shipped recipe where it is not there."""
    if name not in shipped_recipes():
        return Path(name)
    folder = DIRECTORY / name
    run_once(folder / RECIPE, python("-m", "bench.permuted_model", name, str(folder)))
    return folder


def _ours(
    strategy: DecoderStrategy, fp32: Fp32, directory: Path, rounds: int
) -> Iterator[dict[str, Any]]:
    threads = available_cpus()
    # A graph reads what its weights knew of their inputs when it was traced.
    graphs = dict(_saved(strategy, (each for each in CANDIDATES if not each.calibrated), directory))
    strategy.calibrate(directory)
    calibrated = (each for each in CANDIDATES if each.calibrated)
    budgets = _budgets(strategy.convert())
    graphs |= _saved(strategy, (*calibrated, *budgets), directory)
    speeds = _speeds(graphs, rounds, threads) if rounds else {}
    for candidate, graph_directory in graphs.items():
        say(f"drift of {candidate.words}")
        drift = fp32.drift_of_graph(graph_directory / GRAPH, threads)
        size = sum(path.stat().st_size for path in graph_directory.iterdir())
        yield _row(KINDLING, candidate.words, size, drift) | speeds.get(candidate, {})


def _budgets(graph: ir.Model) -> Iterator[Candidate]:
    """Yields "auto" with each of BUDGETS, in whole MB."""
    precision = Precision("auto")
    frontier = frontier_of_graph(graph, precision)
    least, most = (
        size_of_weights(quantize(graph.clone(), precision, frontier.plan(count)))
        for count in (0, len(frontier.upgrades))
    )
    for share in BUDGETS:
        max_mb = math.ceil((least + share * (most - least)) / MB)
        yield Candidate(replace(precision, max_mb=float(max_mb)))


def _saved(
    strategy: DecoderStrategy, candidates: Iterable[Candidate], directory: Path
) -> Iterator[tuple[Candidate, Path]]:
    """Yields candidates, and the directories that their graphs are saved to."""
    for candidate in candidates:
        say(f"quantize to {candidate.words}")
        path = directory / candidate.words
        save(_quantised(strategy.convert(), candidate.precision), path, threads=available_cpus())
        yield candidate, path


def _quantised(graph: ir.Model, precision: Precision) -> ir.Model:
    """Returns the quantised graph; of "auto", the plan that fits into its budget."""
    if precision.max_mb is None:
        return quantize(graph, precision)
    frontier = frontier_of_graph(graph, precision)
    order, upgrades = filled(precision.max_mb, graph, precision, frontier)
    return quantize(graph, precision, order.plan(upgrades))


def _llama_cpps(folder: Path, text: str, fp32: Fp32) -> Iterator[dict[str, Any]]:
    for made in quantised_files(folder, text):
        words = made.type + (", importance matrix" if made.importance else "")
        say(f"drift of llama.cpp's {words}")
        drift = fp32.drift_of_gguf(made.path, say)
        yield _row(LLAMA_CPP, words, made.path.stat().st_size, drift)
        made.path.unlink()


def _row(quantiser: str, precision: str, size: int, drift: Drift) -> dict[str, Any]:
    figures = {name: round(value, 4) for name, value in asdict(drift).items()}
    size_mb = {"megabytes": round(size / 1e6, 1)}
    return {"quantiser": quantiser, "precision": precision} | size_mb | figures


def _speeds(
    graphs: Mapping[Candidate, Path], rounds: int, threads: int
) -> dict[Candidate, dict[str, float]]:
    """Measures milliseconds a token, and the ratio to the first candidate: over 1 is faster."""
    loaded = {each: Graph(directory / GRAPH, 1, threads) for each, directory in graphs.items()}
    seconds: dict[Candidate, list[float]] = {candidate: [] for candidate in loaded}
    for number in range(rounds + 1):
        say(f"decode, round {number} of {rounds}")
        for candidate, graph in loaded.items():
            took = graph.decode_round()
            if number:  # the first round only warms up
                seconds[candidate].append(took)
    base = seconds[CANDIDATES[0]]
    return {
        candidate: {
            "decode_ms": round(1000 * statistics.median(took), 2),
            "decode_ratio": round(
                statistics.median(b / t for b, t in zip(base, took, strict=True)), 3
            ),
        }
        for candidate, took in seconds.items()
    }


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns the rows as a table in Markdown, the smallest file first; ours are in bold."""
    rows = sorted(rows, key=lambda row: float(row["megabytes"]))
    columns = [column for column in COLUMNS if any(column in row for row in rows)]
    lines = [
        _line(COLUMNS[column] for column in columns),
        "|" + "".join("---:|" if column in FORMATS else "---|" for column in columns),
    ]
    lines += [_line(_cell(row, column) for column in columns) for row in rows]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(row: Mapping[str, Any], column: str) -> str:
    if column not in row:
        return ""
    words = FORMATS.get(column, "{}").format(row[column])
    return f"**{words}**" if row["quantiser"] == KINDLING else words


if __name__ == "__main__":
    main(sys.argv[1:])
