"""Measures the speed of one stream by how often a draft model's guesses come true.

    python -m bench draft [MODEL+DRAFT ...] [--acceptance 0 0.3 0.5 0.7 0.9 1] [--avx2]

Both are named by shipped recipes and have random weights of their shapes (bench.draft_models), on
which time does not depend. The draft model's graph really runs, but its ids are those that the
model is known to choose, in so many of the places, and wrong ones in all others
(bench.scripted_draft). The draft may be the model itself, or as many of its own first layers as a
number in its place says. `--real` follows no script: the ids are what the graph says.

An engine without drafts, and one with drafts for each acceptance, run the same sessions in turns,
over the same slot and ids, so what they write there is the same: every answer is compared. Each
answer with drafts stands between two without; prompt lookup is off, since random weights repeat
themselves. The speed is that of the answer after its first id. Figures are medians of the rounds'
ratios, by the clock and, for a crowded machine, by processor time. Progress goes to standard error,
a table and as the last line one JSON object to standard output.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bench.avx2 import is_shown_alone, show_avx2_alone
from bench.draft_models import IDS, graph_of, own_layers_of, pair_of
from bench.machine import commit, describe_machine
from bench.rounds import say
from bench.scripted_draft import ScriptedRunner, TimedRunner, hits_of
from bench.servers import python
from handlers.cpus import available_cpus
from handlers.engine.draft_model import DraftModel
from handlers.engine.engine import Engine
from handlers.engine.params import SamplingParams
from handlers.engine.session import Session

PAIRS = ("smollm2-1.7b+smollm2-135m", "llama-3.2-3b+llama-3.2-1b")
ACCEPTANCES = (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)
UNKNOWN = 0.5
"""The acceptance that an engine is told where no script has one."""
PROMPT = 64
CHUNK = 128
SLOTS = 1


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, the seconds from its first id to its last, and what was drafted for it."""

    ids: list[int]
    seconds: float
    processor: float
    """Of all threads, in the same time."""
    drafted: int
    accepted: int


@dataclass(frozen=True, slots=True)
class Sample:
    """An answer with drafts between two without."""

    acceptance: float | None
    """That of the script, None where the graph itself chose what is drafted."""
    ratio: float
    """Its speed over that of the two."""
    processor: float
    """The same by processor time."""
    drafted: int
    accepted: int


@dataclass(frozen=True, slots=True)
class Sessions:
    """A pair's loaded graphs."""

    model: Session
    draft: Session
    shares_cache: bool
    """Whether the draft model is made of the model's own layers."""

    @classmethod
    def load(cls, pair: str, options: argparse.Namespace, threads: int) -> Sessions:
        """Loads what MODEL+DRAFT names, made before if need be."""
        name, draft = pair_of(pair)
        own, weights = draft.isdecimal(), options.weights
        paths = (
            graph_of(name, weights),
            own_layers_of(name, weights, int(draft)) if own else graph_of(draft, weights),
        )
        capacity = PROMPT + options.tokens
        model, guesses = (
            Session(path, threads=threads, slots=SLOTS, capacity=capacity) for path in paths
        )
        if own:
            guesses.share_cache(model)
        return cls(model, guesses, own)


class Bench:
    """A pair of sessions, an engine without drafts, and one with drafts for each acceptance.

    An engine learns times and rates as it serves, so each acceptance has its own.
    """

    def __init__(
        self,
        sessions: Sessions,
        tokens: int,
        acceptances: Sequence[float | None],
    ) -> None:
        runner = TimedRunner if None in acceptances else ScriptedRunner
        self.model, self.draft = TimedRunner(sessions.model), runner(sessions.draft)
        self.shares_cache = sessions.shares_cache
        self.tokens = tokens
        self.plain = self._engine(None)
        self.drafting = {
            each: self._engine(UNKNOWN if each is None else each) for each in acceptances
        }

    def _engine(self, acceptance: float | None) -> Engine:
        """Returns an engine whose draft model is expected to do so well, or that has none."""
        capacity = PROMPT + self.tokens
        draft = None
        if acceptance is not None:
            draft = DraftModel(
                self.draft,
                slots=SLOTS,
                capacity=capacity,
                prefill_chunk=CHUNK,
                shares_cache=self.shares_cache,
                acceptance=acceptance,
            )
        return Engine(
            self.model,
            eos_token_ids=(),
            slots=SLOTS,
            context_length=capacity,
            prefill_chunk=CHUNK,
            prompt_lookup=False,
            queue_limit=0,
            draft=draft,
        )

    def round(self, number: int) -> Iterator[Sample]:
        """Yields a sample for each acceptance, of the answer to a prompt of this round."""
        prompt = random.Random(number).choices(IDS, k=PROMPT)  # noqa: S311  no secret
        before = expected = self.answer(self.plain, prompt)
        for acceptance, engine in self.drafting.items():
            if isinstance(self.draft, ScriptedRunner):
                ids = [*prompt, *expected.ids]
                self.draft.follow(ids, hits_of(acceptance or 0.0, len(ids), number))
            drafted = self.answer(engine, prompt)
            after = self.answer(self.plain, prompt)
            if drafted.ids != expected.ids:
                raise RuntimeError("Drafts have changed the answer.")
            ratio = (before.seconds + after.seconds) / 2 / drafted.seconds
            processor = (before.processor + after.processor) / 2 / drafted.processor
            yield Sample(acceptance, ratio, processor, drafted.drafted, drafted.accepted)
            before = after

    def answer(self, engine: Engine, prompt: Sequence[int]) -> Answer:
        """Answers greedily, to the last token that is asked for."""
        params = SamplingParams(self.tokens, temperature=0.0, ignore_eos=True)
        generation = engine.submit(prompt, params)
        ids = []
        begun = 0.0
        for step in generation:
            begun = begun or time.process_time()
            ids += [] if step.token_id is None else [step.token_id]
        processor = time.process_time() - begun
        stats = generation.stats()
        seconds = stats.decode_ms / 1e3
        return Answer(ids, seconds, processor, stats.drafted_tokens, stats.accepted_tokens)


def main(words: list[str]) -> None:
    """Measures each pair, and prints a table and one JSON object."""
    options = _parser().parse_args(words)
    if options.avx2 and not is_shown_alone():
        show_avx2_alone()
        os.execv(sys.executable, python("-m", "bench", "draft", *words))  # noqa: S606  itself
    threads = available_cpus()
    machine = describe_machine(threads)
    rows = [row(pair, options, threads) for pair in options.pairs or PAIRS]
    print(table(rows))
    document = {"benchmark": "draft", "commit": commit(), "machine": machine, "pairs": rows}
    print(json.dumps(document))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench draft", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("pairs", nargs="*", metavar="MODEL+DRAFT", help="names of shipped recipes")
    parser.add_argument("--acceptance", type=float, nargs="+", default=ACCEPTANCES)
    parser.add_argument("--real", action="store_true", help="draft what the graph says")
    parser.add_argument("--weights", default="int4", help="as [precision] has them: int4, compact4")
    parser.add_argument("--tokens", type=int, default=128, help="of an answer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--avx2", action="store_true", help="hide what is wider than AVX2")
    return parser


def row(pair: str, options: argparse.Namespace, threads: int) -> dict[str, Any]:
    """Measures one pair: a point for each acceptance, and what its calls took."""
    acceptances = (None,) if options.real else tuple(options.acceptance)
    bench = Bench(Sessions.load(pair, options, threads), options.tokens, acceptances)
    samples: list[Sample] = []
    for number in range(options.rounds + 1):
        for sample in bench.round(number):
            say(f"{pair}, {sample}")
            samples += [sample] if number else []  # in the first the engines learn their times
    return {
        "pair": pair,
        "weights": options.weights,
        "tokens": options.tokens,
        "points": [point(samples, acceptance) for acceptance in acceptances],
        "model_ms": bench.model.medians(),
        "draft_ms": bench.draft.medians(),
    }


def point(samples: Sequence[Sample], acceptance: float | None) -> dict[str, Any]:
    """Returns the figures at one acceptance: the script's, or None for all that follow none."""
    chosen = [sample for sample in samples if sample.acceptance == acceptance]
    ratios = [sample.ratio for sample in chosen]
    drafted, accepted = (
        sum(getattr(sample, name) for sample in chosen) for name in ("drafted", "accepted")
    )
    return {
        "acceptance": acceptance,
        "ratio": round(statistics.median(ratios), 2),
        "least": round(min(ratios), 2),
        "most": round(max(ratios), 2),
        "processor": round(statistics.median(sample.processor for sample in chosen), 2),
        "drafted": drafted,
        "accepted": accepted,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The points as a table in Markdown: a line for each pair."""
    names = [_name(each["acceptance"]) for each in rows[0]["points"]]
    lines = [f"| pair | {' | '.join(names)} |", "|---" + "|---:" * len(names) + "|"]
    for each in rows:
        cells = ("{ratio} ({least} to {most})".format(**figures) for figures in each["points"])
        lines.append(f"| {each['pair']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _name(acceptance: float | None) -> str:
    return "as it is" if acceptance is None else f"{acceptance:g}"
