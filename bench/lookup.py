"""Measures what drafts gain and cost on texts: the tables of docs/engine.md.

    python -m bench.lookup [--rounds 5] [--tokens 128]
    python -m bench.lookup --of draft_model [--model DIR] ...

Two engines over build/model, or another artefact, answer the same prompts in turns, so that a
machine that slows down slows both: with and without prompt lookup, or with and without the
artefact's draft model, prompt lookup being on in both. The speed is tokens of all streams over
processor time; prompts are read in the first round, and reused in those that count. Each figure is
the median of the rounds' ratios. Answers are greedy and end by themselves. The last line is one
JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from bench.machine import describe_machine
from handlers.artifact.manifest import Artifact
from handlers.config import Settings
from handlers.cpus import available_cpus
from handlers.engine.engine import Engine
from handlers.engine.params import Prompt, SamplingParams
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent
CORPUS = ROOT / "model_export" / "corpus" / "evaluation.txt"
CODE = ROOT / "handlers" / "engine"
DRAFTERS = ("prompt_lookup", "draft_model")
"""Settings that let something draft."""
STREAMS = (1, 4)
FILES = ("batch", "sampling", "scheduler", "sequence")
QUESTIONS = (
    "Write a short story about a fisherman who finds a bottle.",
    "Explain why the sky is blue.",
    "Give me advice for a job interview.",
    "Describe the history of the bicycle.",
)


def main() -> None:
    """Measures every kind of prompt and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="of an answer, at most")
    parser.add_argument("--of", choices=DRAFTERS, default=DRAFTERS[0], help="what drafts")
    parser.add_argument("--model", type=Path, default=ROOT / "build" / "model")
    parser.add_argument("--streams", type=int, nargs="+", default=STREAMS)
    options = parser.parse_args()
    artifact = Artifact.open(options.model)
    params = SamplingParams(options.tokens, temperature=0.0)
    rows = []
    for streams in options.streams:
        plain, drafting = (_engine(artifact, options.of, on) for on in (False, True))
        for kind, texts in _texts().items():
            prompts = [Prompt(ids, params) for ids in _encoded(artifact, texts[:streams])]
            ratios = [
                _ratio(drafting, plain, prompts, drafting_first=number % 2 == 0)
                for number in range(options.rounds + 1)
            ][1:]  # the first round reads the prompts
            row = {"kind": kind, "streams": streams, "ratio": round(statistics.median(ratios), 2)}
            rows.append(row | {"least": round(min(ratios), 2), "most": round(max(ratios), 2)})
            print("| {kind} | {streams} | {ratio} ({least} to {most}) |".format(**rows[-1]))
    machine = describe_machine(available_cpus())
    print(json.dumps({"benchmark": options.of, "machine": machine, "rows": rows}))


def _texts() -> dict[str, list[str]]:
    """Four prompts of each kind."""
    paragraphs = [text for text in CORPUS.read_text("utf-8").split("\n\n") if len(text) > 400]
    sources = [(CODE / f"{name}.py").read_text("utf-8")[:1200] for name in FILES]
    return {
        "repeat a text": [f"Repeat the following text exactly:\n\n{p}" for p in paragraphs[:4]],
        "edit code": [f"Print this file with a comment added:\n```\n{s}```" for s in sources],
        "quote a context": [
            f"Context:\n{p}\n\nWhat does the context say? Quote its sentences."
            for p in paragraphs[4:8]
        ],
        "summarise": [f"{p}\n\nSummarize the text above." for p in paragraphs[8:12]],
        "nothing to copy": list(QUESTIONS),
    }


def _encoded(artifact: Artifact, texts: Sequence[str]) -> list[list[int]]:
    tokenizer = Tokenizer.load(artifact.tokenizer)
    template = ChatTemplate.of(artifact)
    return [
        tokenizer.encode(template.render([{"role": "user", "content": text}])) for text in texts
    ]


def _engine(artifact: Artifact, drafter: str, on: bool) -> Engine:
    return Engine.load(artifact, replace(Settings.from_environ({}), **{drafter: on}))


def _ratio(
    drafting: Engine, plain: Engine, prompts: Sequence[Prompt], *, drafting_first: bool
) -> float:
    """The speed with drafts to the speed without."""
    order = (drafting, plain) if drafting_first else (plain, drafting)
    speeds = {engine: _speed(engine, prompts) for engine in order}
    return speeds[drafting] / speeds[plain]


def _speed(engine: Engine, prompts: Sequence[Prompt]) -> float:
    """Tokens in a second of processor time, of all streams together."""
    begun = time.process_time()
    tokens = len(list(engine.submit_all(prompts)))
    return tokens / (time.process_time() - begun)


if __name__ == "__main__":
    main()
