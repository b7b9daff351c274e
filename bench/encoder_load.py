"""An encoder served alone: its start, its speed and its memory, for bench.sizes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from bench.peers.kindling import cloud_run
from bench.processes import peak_rss_mb
from bench.servers import Capacity, running
from bench.workload import KNOCK_SECONDS, START_LIMIT_SECONDS
from handlers.artifact.manifest import Task

TEXTS = 32
WORDS = 180
PATHS: dict[Task, str] = {
    "feature-extraction": "/v1/embeddings",
    "text-classification": "/v1/classify",
    "text-ranking": "/v1/rerank",
}


def measure_encoder(model: Path, task: Task, capacity: Capacity) -> dict[str, float]:
    """`read_tok_s` is of one request of TEXTS texts of WORDS words, special tokens included."""
    server = cloud_run(capacity, model)
    url = f"http://127.0.0.1:{server.port}{PATHS[task]}"
    started = time.perf_counter()
    with running(server) as process:
        _first_answer(url, task)
        figures = {"cold_start_ms": (time.perf_counter() - started) * 1e3}
        _ask(url, _body(task, TEXTS))  # warms up
        asked = time.perf_counter()
        tokens = _ask(url, _body(task, TEXTS))["usage"]["total_tokens"]
        figures["read_tok_s"] = tokens / (time.perf_counter() - asked)
        figures["peak_rss_mb"] = peak_rss_mb(process.pid)
    return {name: round(value, 1) for name, value in figures.items()}


def _body(task: Task, count: int) -> dict[str, object]:
    text = " ".join(["kettle"] * WORDS)
    texts = [f"{text} {number}" for number in range(count)]
    if task == "text-ranking":
        return {"query": "Which water boils?", "documents": texts}
    return {"input": texts}


def _first_answer(url: str, task: Task) -> None:
    limit = time.perf_counter() + START_LIMIT_SECONDS
    while True:
        try:
            _ask(url, _body(task, 1))
        except HTTPError as error:
            if error.code != 503 or time.perf_counter() > limit:
                raise
        except URLError:
            if time.perf_counter() > limit:
                raise
        else:
            return
        time.sleep(KNOCK_SECONDS)


def _ask(url: str, body: dict[str, object]) -> Any:
    request = Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urlopen(request) as answer:
        return json.load(answer)
