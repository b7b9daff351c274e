"""Kindling beside other ways to serve the same model, on this machine, in this run.

    make bench                                  (or: python -m bench)
    make bench ARGS="kindling llama-server"     these peers alone
    make bench ARGS="--avx2"                    as on a CPU with AVX2 and nothing wider
    make bench ARGS="sizes [RECIPE ...]"        other models, export included: bench/sizes.py
    make bench ARGS="export NAME ..."           their exports, beside others': bench/export.py
    make bench ARGS="precision NAME ..."        drift by precision, beside llama.cpp's
    make bench ARGS="draft [PAIR ...]"          speed with a draft model, by its acceptance

The peers are bench/peers/. All get the same prompts, token counts and threads. Progress goes to
standard error; on standard output there are a card, the goals, a row for BENCHMARKS.md, and as its
very last line one JSON document, which is also written to build/bench/result.json.

A first start of each, which fills the page cache and Python's bytecode caches, is not counted.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from bench import export, report, sizes
from bench.avx2 import show_avx2_alone
from bench.installed import installed_mb
from bench.machine import describe_machine
from bench.peers import PEERS
from bench.peers.peer import Peer
from bench.processes import no_page_cache_drop
from bench.prompts import MODEL
from bench.rounds import STREAMS, Entry, Plan, measure, say
from bench.servers import CACHE, Capacity
from handlers.cpus import available_cpus


def main() -> None:
    """Measures, then prints."""
    if sys.argv[1:2] in (["sizes"], ["export"]):
        {"sizes": sizes, "export": export}[sys.argv[1]].main(sys.argv[2:])
        return
    if sys.argv[1:2] == ["draft"]:
        from bench import draft  # and onnxruntime, which nothing else here imports

        draft.main(sys.argv[2:])
        return
    if sys.argv[1:2] == ["precision"]:
        from bench import precision  # and torch, which nothing else here imports

        precision.main(sys.argv[2:])
        return
    options = _parser().parse_args()
    if options.avx2:
        show_avx2_alone()
    threads = available_cpus()
    machine = describe_machine(threads)
    warn_of_neighbours(machine["load_average"])
    chosen = list(dict.fromkeys(options.peers or PEERS.values()))
    plan, capacity = Plan(options.rounds, options.new_tokens), Capacity(threads, max(STREAMS))
    machine |= asdict(plan) | asdict(capacity)
    entries = measure(chosen, capacity, plan)
    add_installed(entries)
    reason = no_page_cache_drop()
    skipped = [f"first starts with an empty page cache: {reason}"] if reason else []
    document = report.document(entries, machine, model_mb(MODEL), skipped)
    line = json.dumps(document)
    (CACHE / "result.json").write_text(line)
    print(report.card(document), report.goals_table(document), sep="\n\n")
    print(f"\nFor BENCHMARKS.md:\n{report.row(document)}\n")
    print(line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("peers", nargs="*", type=_peer, help="all, unless some are named")
    parser.add_argument("--rounds", type=int, default=Plan().rounds)
    parser.add_argument("--new-tokens", type=int, default=Plan().new_tokens, help="of each stream")
    parser.add_argument("--avx2", action="store_true", help="hide what is wider than AVX2")
    return parser


def _peer(name: str) -> Peer:
    if name not in PEERS:
        raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(PEERS)}")
    return PEERS[name]


def add_installed(entries: list[Entry]) -> None:
    """Adds what each peer needs on a disk."""
    for entry in entries:
        if entry.server is not None and entry.peer.footprint is not None:
            entry.samples["installed_mb"].append(installed_mb(entry.peer.footprint()))


def model_mb(directory: Path) -> float:
    """Megabytes (1e6) of the exported model's files."""
    return sum(file.stat().st_size for file in directory.iterdir()) / 1e6


def warn_of_neighbours(load: float) -> None:
    """Other programs do not slow all servers alike: OpenMP's threads, in torch, suffer more."""
    if load > 0.5:
        say(f"warning: this machine is busy (load average {load:.1f}), so no figure is reliable")


if __name__ == "__main__":
    main()
