"""The measuring: rounds in which the servers take turns, and what each of them yielded.

A round starts every server alone, with the page cache emptied and with it full; then all of them
are started and asked in turn, so that a slow minute of the machine is shared. A peer that fails is
left out from then on, and its reason is kept.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException

from bench.cold import cold_start
from bench.peers.peer import Peer
from bench.processes import drop_page_cache, no_page_cache_drop, peak_rss_mb
from bench.prompts import Prompts, make_prompts
from bench.servers import Capacity, Server, running
from bench.workload import SHORT, decode_tokens_per_second, first_answer, first_token_ms

STREAMS = (1, 4, 8)
# First tokens are timed several times a round: the shorter, the noisier.
FIRST_TOKENS = {SHORT: 5, 512: 2, 1800: 1}
# Between two turns: idle threads of ONNX Runtime, OpenMP and llama.cpp spin for a while.
PAUSE_SECONDS = 0.3
FAILURES = (RuntimeError, OSError, HTTPException, ValueError)


@dataclass(frozen=True, slots=True)
class Plan:
    """The amount of what is measured; a test or a trial takes less."""

    rounds: int = 3
    new_tokens: int = 48
    first_tokens: Mapping[int, int] = field(default_factory=lambda: dict(FIRST_TOKENS))
    """How many times a round, for each length of prompt."""

    def prompts(self) -> dict[int, int]:
        """The most texts of each length that one server is asked."""
        counts = dict.fromkeys((SHORT, *self.first_tokens), 1)
        longest = max(self.first_tokens)
        for length, times in self.first_tokens.items():
            counts[length] += self.rounds * times
        counts[longest] += self.rounds
        # Two cold starts, the first answer, the warm-up's streams, and those that are measured.
        counts[SHORT] += self.rounds * (3 + max(STREAMS) + sum(STREAMS))
        return counts


class Entry:
    """A peer in this run: its server, its prompts, its figures, and why it failed if it did."""

    def __init__(self, peer: Peer, capacity: Capacity, texts: Mapping[int, Sequence[str]]) -> None:
        self.peer = peer
        self.prompts = Prompts(texts)
        self.samples: dict[str, list[float]] = defaultdict(list)
        self.versions: dict[str, str] = {}
        self.server: Server | None = None
        self.process: subprocess.Popen[bytes] | None = None
        """While it serves."""
        self.failed: str | None = None
        with self.attempt("making it ready"):
            say(f"making {peer.name} ready")
            peer.prepare()
            self.server = peer.server(capacity)
            self.versions = peer.versions()

    @contextmanager
    def attempt(self, doing: str) -> Iterator[None]:
        """Keeps the reason when what is done inside fails."""
        try:
            yield
        except FAILURES as error:
            self.failed = f"{doing}: {str(error) or type(error).__name__}"
            if self.process and (status := self.process.poll()) is not None:
                self.failed += f" (its process ended with status {status})"
            say(f"{self.peer.name} failed at {self.failed}")


def measure(peers: Sequence[Peer], capacity: Capacity, plan: Plan) -> list[Entry]:
    """Everything, of every peer."""
    texts = make_prompts(plan.prompts())
    entries = [Entry(peer, capacity, texts) for peer in peers]
    for entry, server in _able(entries):
        say(f"a first start of {entry.peer.name}, not counted")
        with entry.attempt("its first start"):
            cold_start(server, entry.prompts.take(SHORT))
    for number in range(plan.rounds):
        say(f"round {number + 1} of {plan.rounds}")
        # Whoever comes first finds the quieter machine, or the hotter one.
        shift = number % len(entries)
        turning = entries[shift:] + entries[:shift]
        _measure_starts(turning)
        _measure_serving(turning, plan)
    return entries


def _able(entries: Sequence[Entry], *, serving: bool = False) -> Iterator[tuple[Entry, Server]]:
    for entry in entries:
        if entry.failed is None and entry.server and not (serving and entry.peer.cold_only):
            yield entry, entry.server


def _measure_starts(entries: Sequence[Entry]) -> None:
    """Each alone: a server that runs would keep files in memory that another must read."""
    for entry, server in _able(entries):
        with entry.attempt("a cold start"):
            if no_page_cache_drop() is None:
                drop_page_cache()
                first = cold_start(server, entry.prompts.take(SHORT))
                entry.samples["first_start_ms"].append(first.milliseconds)
                entry.samples["first_start_read_mb"].append(first.read_mb)
            again = cold_start(server, entry.prompts.take(SHORT))
            entry.samples["cold_start_ms"].append(again.milliseconds)


def _measure_serving(entries: Sequence[Entry], plan: Plan) -> None:
    with ExitStack() as stack:
        for entry, server in _able(entries, serving=True):
            with entry.attempt("starting to serve"):
                entry.process = stack.enter_context(running(server))
                first_answer(server, entry.process, entry.prompts.take(SHORT))
                _warm_up(entry, server, plan)
        for length, times in plan.first_tokens.items():
            for _ in range(times):
                _take_turns(entries, f"first_token_{length}_ms", _first_token(length))
        for streams in STREAMS:
            _take_turns(entries, f"decode_{streams}_tok_s", _decode(streams, plan.new_tokens))
        for entry, _ in _able(entries, serving=True):
            if entry.process:
                with entry.attempt("peak_rss_mb"):
                    entry.samples["peak_rss_mb"].append(peak_rss_mb(entry.process.pid))
                entry.process = None


def _warm_up(entry: Entry, server: Server, plan: Plan) -> None:
    """The largest shapes once, uncounted: memory is allocated and threads are started."""
    first_token_ms(server, entry.prompts, max(plan.first_tokens))
    decode_tokens_per_second(server, entry.prompts, max(STREAMS), new_tokens=4)


Measurement = Callable[[Server, Prompts], float]


def _take_turns(entries: Sequence[Entry], metric: str, measurement: Measurement) -> None:
    for entry, server in _able(entries, serving=True):
        time.sleep(PAUSE_SECONDS)
        with entry.attempt(metric):
            entry.samples[metric].append(measurement(server, entry.prompts))


def _first_token(length: int) -> Measurement:
    return lambda server, prompts: first_token_ms(server, prompts, length)


def _decode(streams: int, new_tokens: int) -> Measurement:
    return lambda server, prompts: decode_tokens_per_second(server, prompts, streams, new_tokens)


def say(progress: str) -> None:
    """Prints to standard error, since standard output is for the result."""
    print(f"{time.strftime('%H:%M:%S')} {progress}", file=sys.stderr, flush=True)
