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
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.drift import Fp32
from bench.folder_recipe import RECIPE
from bench.graph_decode import Graph
from bench.machine import commit, describe_machine
from bench.peers.llama_quantize import quantised_files
from bench.prepare import run_once
from bench.rounds import say
from bench.servers import ROOT, python
from handlers.cpus import available_cpus
from model_export.decoder.export import DecoderStrategy
from model_export.fetch.load import LoadedModel
from model_export.quantize import quantize
from model_export.recipe import Precision
from model_export.recipe_loader import load_decoder_recipe, shipped_recipes
from model_export.save import save
from model_export.verify.corpus import calibration
from model_export.verify.drift import Drift

DIRECTORY = ROOT / "build" / "permuted"
CANDIDATES = (
    Precision(lm_head="int8"),
    Precision(lm_head="int8", mixed_layers=True),
    Precision(),
    Precision(weights="int8"),
)
"""Those that one chooses among: add others here. Decode speeds are ratios to the first."""
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
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        directory = Path(scratch)
        strategy = DecoderStrategy.load(load_decoder_recipe(str(folder / RECIPE)), say)
        fp32 = Fp32.record(strategy.loaded, directory / "fp32.logits", say)
        found: list[Iterable[dict[str, Any]]] = []
        if options.only != LLAMA_CPP:
            found.append(_ours(strategy, fp32, directory, options.rounds))
        if options.only != KINDLING:
            found.append(_llama_cpps(folder, calibration_text(strategy.loaded), fp32))
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


def calibration_text(loaded: LoadedModel) -> str:
    """Returns the calibration text that is shipped, its chats by the model's template."""
    parts = list(calibration().texts)
    for messages in (conversation.messages for conversation in calibration().chats):
        if loaded.chat_template is None:
            parts += [message["content"] for message in messages]
            continue
        parts.append(
            str(
                loaded.tokenizer.apply_chat_template(
                    messages, chat_template=loaded.chat_template, tokenize=False
                )
            )
        )
    return "\n\n".join(parts)


def _ours(
    strategy: DecoderStrategy, fp32: Fp32, directory: Path, rounds: int
) -> Iterator[dict[str, Any]]:
    threads = available_cpus()
    graphs: dict[Precision, Path] = {}
    for number, precision in enumerate(CANDIDATES):
        say(f"quantize to {precision.describe()}")
        graphs[precision] = directory / str(number)
        save(quantize(strategy.convert(), precision), graphs[precision], threads=threads)
    speeds = _speeds(graphs, rounds, threads) if rounds else {}
    for precision, graph in graphs.items():
        say(f"drift of {precision.describe()}")
        drift = fp32.drift_of_graph(graph / "model.onnx", threads)
        size = sum(path.stat().st_size for path in graph.iterdir())
        row = _row(KINDLING, precision.describe(), size, drift)
        yield row | speeds.get(precision, {})


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
    graphs: Mapping[Precision, Path], rounds: int, threads: int
) -> dict[Precision, dict[str, float]]:
    """Measures milliseconds a token, and the ratio to the first candidate: over 1 is faster."""
    loaded = {p: Graph(directory / "model.onnx", 1, threads) for p, directory in graphs.items()}
    seconds: dict[Precision, list[float]] = {precision: [] for precision in loaded}
    for number in range(rounds + 1):
        say(f"decode, round {number} of {rounds}")
        for precision, graph in loaded.items():
            took = graph.decode_round()
            if number:  # the first round only warms up
                seconds[precision].append(took)
    base = seconds[CANDIDATES[0]]
    return {
        precision: {
            "decode_ms": round(1000 * statistics.median(took), 2),
            "decode_ratio": round(
                statistics.median(b / t for b, t in zip(base, took, strict=True)), 3
            ),
        }
        for precision, took in seconds.items()
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
