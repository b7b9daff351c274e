"""Kindling alone: threads x exported models x context lengths, and what a million tokens cost.

    python -m bench.sweep [--models DIR ...] [--threads N ...] [--contexts N ...]

A model's block size is its export's, so the models are whatever is exported: build/model and the
decoders in build/models/, unless some are named. Prompts are half a context long, for the first
token and for decode of one stream; eight streams start from 38 tokens. Lambda answers one request
at a time and is priced by one stream, Cloud Run by eight. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench.cost import Prices, per_million
from bench.machine import commit, describe_machine
from bench.peers.kindling import cloud_run
from bench.processes import peak_rss_mb
from bench.prompts import MODEL, Prompts, make_prompts
from bench.rounds import PAUSE_SECONDS, say
from bench.servers import Capacity, running
from bench.workload import SHORT, decode_tokens_per_second, first_answer, first_token_ms
from handlers.cpus import available_cpus

STREAMS = 8
NEW_TOKENS = 32
# A row's fields, and what the table calls them.
COLUMNS = {
    "precision": "precision",
    "threads": "threads",
    "context_length": "context",
    "cold_start_ms": "cold start, ms",
    "prefill_tok_s": "prompt, tok/s",
    "decode_1_tok_s": "1 stream, tok/s",
    "decode_8_tok_s": "8 streams, tok/s",
    "peak_rss_mb": "peak memory, MB",
    "lambda_prompt": "Lambda, $/M prompt",
    "lambda_output": "Lambda, $/M output",
    "cloud_run_prompt": "Cloud Run, $/M prompt",
    "cloud_run_output": "Cloud Run, $/M output",
}


def main() -> None:
    """Measures every combination and prints the table."""
    options = _parser().parse_args()
    machine = describe_machine(available_cpus())
    prices = Prices.load()
    rows = []
    for model, threads, context in itertools.product(
        options.models or exported(), options.threads, options.contexts
    ):
        precision = precision_of(model)
        say(f"{model}, {precision}, {threads} threads, context {context}")
        row = {"precision": precision, "threads": threads, "context_length": context}
        row |= measure(model, Capacity(threads, STREAMS, context))
        rows.append(row | costs(row, prices))
    print(table(rows))
    print(f"Prices of {prices.date}; check them at the pages that bench/prices.toml names.")
    document = {"benchmark": "sweep", "commit": commit(), "machine": machine, "rows": rows}
    print(json.dumps(document | {"prices": prices.date}))


def _parser() -> argparse.ArgumentParser:
    cpus = available_cpus()
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--models", type=Path, nargs="+", help="directories that make export made")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, cpus // 2 or 1, cpus}))
    parser.add_argument("--contexts", type=int, nargs="+", default=[512, 2048, 8192])
    return parser


def exported() -> list[Path]:
    """The demo and the other decoders that `make export` has made."""
    others = MODEL.with_name("models").glob("*/manifest.json")
    models = sorted(manifest.parent for manifest in others)
    return [MODEL, *(model for model in models if manifest_of(model)["task"] == "text-generation")]


def precision_of(model: Path) -> str:
    """The precision as the manifest describes it, with the block size."""
    return str(manifest_of(model)["precision"])


def manifest_of(model: Path) -> dict[str, Any]:
    """Reads what an artefact says of itself."""
    described: dict[str, Any] = json.loads((model / "manifest.json").read_text())
    return described


def measure(
    model: Path, capacity: Capacity, fields: Mapping[str, object] | None = None
) -> dict[str, float]:
    """One process: its start, its speeds, its memory. `fields` go into every request."""
    half = capacity.context_length // 2
    prompts = Prompts(make_prompts({SHORT: 1 + 2 * STREAMS, half: 3}, model))
    server = replace(cloud_run(capacity, model), fields=fields or {})
    started = time.perf_counter()
    with running(server) as process:
        answer = first_answer(server, process, prompts.take(SHORT))
        figures = {"cold_start_ms": (answer.first - started) * 1e3}
        first_token_ms(server, prompts, half)  # warms up
        decode_tokens_per_second(server, prompts, STREAMS, 4)
        time.sleep(PAUSE_SECONDS)
        figures["prefill_tok_s"] = half / first_token_ms(server, prompts, half) * 1e3
        decode = (server, prompts, 1, NEW_TOKENS, half)
        figures["decode_1_tok_s"] = decode_tokens_per_second(*decode)
        decode = (server, prompts, STREAMS, NEW_TOKENS, SHORT)
        figures["decode_8_tok_s"] = decode_tokens_per_second(*decode)
        figures["peak_rss_mb"] = peak_rss_mb(process.pid)
    return {name: round(value, 1) for name, value in figures.items()}


def costs(row: dict[str, Any], prices: Prices) -> dict[str, float]:
    """Dollars for a million tokens that are read, and for a million that are written."""
    on_lambda = prices.lambda_second(row["threads"], row["peak_rss_mb"])
    on_cloud_run = prices.cloud_run_second(row["threads"], row["peak_rss_mb"])
    return {
        "lambda_prompt": round(per_million(on_lambda, row["prefill_tok_s"]), 3),
        "lambda_output": round(per_million(on_lambda, row["decode_1_tok_s"]), 3),
        "cloud_run_prompt": round(per_million(on_cloud_run, row["prefill_tok_s"]), 3),
        "cloud_run_output": round(per_million(on_cloud_run, row["decode_8_tok_s"]), 3),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The results as a table in Markdown."""
    lines = [f"| {' | '.join(COLUMNS.values())} |", "|---" + "|---:" * (len(COLUMNS) - 1) + "|"]
    lines += [f"| {' | '.join(str(row[name]) for name in COLUMNS)} |" for row in rows]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
