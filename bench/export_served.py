"""Serves what bench.export has exported, and asks it: its first answer, its speed, its memory."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from bench.encoder_load import measure_encoder
from bench.peers.kindling import cloud_run
from bench.processes import peak_rss_mb
from bench.prompts import Prompts, make_prompts
from bench.servers import Capacity, running
from bench.sizes import SOME_TEXT
from bench.sweep import manifest_of
from bench.workload import SHORT, decode_tokens_per_second, first_answer
from handlers.cpus import available_cpus

CAPACITY = Capacity(available_cpus(), slots=2, context_length=1024)
NEW_TOKENS = 16


def serve(artefact: Path) -> dict[str, float]:
    """A first answer after 38 tokens from the start of the process, then one stream."""
    task = manifest_of(artefact)["task"]
    if task != "text-generation":
        return measure_encoder(artefact, task, CAPACITY)
    prompts = Prompts(make_prompts({SHORT: 2}, artefact))
    server = replace(cloud_run(CAPACITY, artefact), fields=SOME_TEXT)
    started = time.perf_counter()
    with running(server) as process:
        answer = first_answer(server, process, prompts.take(SHORT))
        figures = {
            "cold_start_ms": (answer.first - started) * 1e3,
            "decode_1_tok_s": decode_tokens_per_second(server, prompts, 1, NEW_TOKENS),
            "peak_rss_mb": peak_rss_mb(process.pid),
        }
    return {name: round(value, 1) for name, value in figures.items()}
