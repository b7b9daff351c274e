"""Kindling beside the plain way to serve the same model, on this machine, in this run.

    make bench        (or: python -m bench)

The plain way is bench/peers/plain_fastapi.py: FastAPI, transformers and torch in fp32. Both get the
same prompts, token counts and threads. Each round starts both processes anew and then asks them
in turn, so that a slow minute of the machine is shared. Progress goes to standard error; on
standard output there is a card, and as its very last line one JSON document.

A first start of each, which fills the page cache and Python's bytecode caches, is not counted. So
cold start here is that of a process, not of a machine that has yet to fetch the image.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from contextlib import ExitStack

from bench import report, servers
from bench.servers import Server
from bench.workload import (
    LONG,
    SHORT,
    Prompts,
    cold_start_ms,
    decode_tokens_per_second,
    first_token_ms,
)
from handlers.config import available_cpus

ROUNDS = 3
STREAMS = (1, 4, 8)
NEW_TOKENS = 48
# First tokens are timed several times a round: each is short, and so the noisier.
FIRST_TOKENS = {SHORT: 5, LONG: 2}

Samples = dict[str, list[float]]


def main() -> None:
    """Measures, then prints."""
    threads = available_cpus()
    machine = report.describe_machine(threads)
    warn_of_neighbours(machine["load_average"])
    both = servers.kindling(threads, slots=max(STREAMS)), servers.plain(threads)
    say("saving the model for the plain server")
    servers.prepare_plain_model()
    prompts = Prompts()
    samples: dict[Server, Samples] = {server: defaultdict(list) for server in both}
    for server in both:
        say(f"a first start of {server.name}, not counted")
        with servers.running(server) as process:
            cold_start_ms(server, process, time.perf_counter(), prompts)
    for number in range(1, ROUNDS + 1):
        say(f"round {number} of {ROUNDS}")
        measure_round(samples, prompts)
    ours, theirs = samples.values()
    print(report.card(ours, theirs))
    print(f"\nFor BENCHMARKS.md:\n{report.row(ours, theirs, machine)}\n")
    print(json.dumps(report.document(ours, theirs, both, machine)))


def measure_round(samples: dict[Server, Samples], prompts: Prompts) -> None:
    """Starts every server, asks each of them everything in turn, and ends them."""
    with ExitStack() as stack:
        processes = {}
        for server, into in samples.items():
            started = time.perf_counter()
            process = processes[server] = stack.enter_context(servers.running(server))
            into["cold_start_ms"].append(cold_start_ms(server, process, started, prompts))
        for server in samples:
            warm_up(server, prompts)
        measure_first_tokens(samples, prompts)
        measure_decoding(samples, prompts)
        for server, into in samples.items():
            into["peak_rss_mb"].append(servers.peak_rss_mb(processes[server].pid))


def warm_up(server: Server, prompts: Prompts) -> None:
    """The largest shapes once, uncounted: memory is allocated and threads are started."""
    first_token_ms(server, prompts, LONG)
    decode_tokens_per_second(server, prompts, max(STREAMS), new_tokens=4)


def measure_first_tokens(samples: dict[Server, Samples], prompts: Prompts) -> None:
    """Both prompt lengths, the servers taking turns."""
    for length, times in FIRST_TOKENS.items():
        for _ in range(times):
            for server, into in samples.items():
                into[f"first_token_{length}_ms"].append(first_token_ms(server, prompts, length))


def measure_decoding(samples: dict[Server, Samples], prompts: Prompts) -> None:
    """Every number of streams, the servers taking turns."""
    for streams in STREAMS:
        for server, into in samples.items():
            speed = decode_tokens_per_second(server, prompts, streams, NEW_TOKENS)
            into[f"decode_{streams}_tok_s"].append(speed)


def warn_of_neighbours(load: float) -> None:
    """Other programs do not slow both servers alike: OpenMP's threads, in torch, suffer more."""
    if load > 0.5:
        say(f"warning: this machine is busy (load average {load:.1f}), so no figure is reliable")


def say(progress: str) -> None:
    """To standard error, since standard output is for the result."""
    print(progress, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
