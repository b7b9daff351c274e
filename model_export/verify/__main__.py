"""`python -m model_export.verify DIRECTORY`: the verifying process; launch.py starts it.

What has passed the gates is then given its baked prefix, which what serves has to compute too.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from handlers.artifact.manifest import Artifact, PrefixInfo
from handlers.config import Settings
from handlers.engine.engine import Engine
from handlers.engine.params import SamplingParams
from handlers.engine.session import Session
from handlers.errors import KindlingError
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from model_export.prefix import bake
from model_export.verify.corpus import evaluation_text
from model_export.verify.drift import WINDOW, check_drift, compare, windows_of
from model_export.verify.exchange import OUTCOME, TASK, Outcome, Task, read_task, write
from model_export.verify.greedy import check_greedy
from model_export.verify.tokens import check_tokens

# A small chunk makes long prompts span many steps while others decode; alone, the engine is
# free to take larger ones. Gate 2 compares both with transformers.
PREFILL_CHUNK = 16


def main() -> None:
    """Runs the gates in order and writes the outcome."""
    directory = Path(sys.argv[1])
    try:
        task = read_task(directory / TASK)
        figures = _run_gates(task)
        outcome = Outcome(figures=figures, failure=None, prefix=_bake(task))
    except KindlingError as error:
        outcome = Outcome(figures={}, failure=str(error))
    write(directory / OUTCOME, outcome)


def _run_gates(task: Task) -> dict[str, Any]:
    artifact = Artifact.open(task.quantised)
    tokenizer = Tokenizer.load(artifact.tokenizer)
    template = ChatTemplate.of(artifact)
    _say("verify: gate 1, ids of texts and chats")
    tokens = check_tokens(task.reference, tokenizer, template)
    _say(f"verify: gate 2, {len(task.reference.answers)} answers of the fp32 graph")
    greedy = check_greedy(task.reference, _engine(task, Artifact.open(task.exact)), tokenizer)
    _say("verify: gate 3, drift of the quantised graph")
    return {
        "tokens": tokens,
        "greedy": greedy,
        "drift": _drift(task, artifact, tokenizer),
        "answer": _answer(task, artifact, tokenizer),
    }


def _drift(task: Task, artifact: Artifact, tokenizer: Tokenizer) -> dict[str, Any]:
    windows = windows_of(evaluation_text(), tokenizer, artifact.manifest.context_length)
    exact = Session(
        task.exact / artifact.graph.name, threads=task.threads, slots=1, capacity=WINDOW
    )
    quantised = Session(artifact.graph, threads=task.threads, slots=1, capacity=WINDOW)
    return check_drift(compare(exact, quantised, windows), task.tolerance, windows, tokenizer)


def _answer(task: Task, artifact: Artifact, tokenizer: Tokenizer) -> dict[str, str]:
    """What the quantised graph says to the corpus's first prompt: for a person to read."""
    first = task.reference.answers[0]
    params = SamplingParams(max_tokens=task.reference.answer_tokens, temperature=0.0)
    steps = _engine(task, artifact).submit(first.prompt_ids, params)
    ids = [step.token_id for step in steps if step.token_id is not None]
    return {
        "prompt": first.prompt,
        "fp32": tokenizer.decode(first.ids),
        "text": tokenizer.decode(ids),
    }


def _bake(task: Task) -> PrefixInfo | None:
    if task.system_prompt is None:
        return None
    artifact = Artifact.open(task.quantised)
    info = bake(artifact, task.system_prompt, task.threads)
    megabytes = artifact.prefix.stat().st_size / 1e6
    _say(f"prefix: {info.tokens} tokens, {megabytes:.1f} MB")
    return info


def _engine(task: Task, artifact: Artifact) -> Engine:
    longest = max(len(answer.prompt_ids) for answer in task.reference.answers)
    return Engine.load(
        artifact,
        Settings.from_environ(
            {
                "KINDLING_THREADS": str(task.threads),
                "KINDLING_CONTEXT_LENGTH": str(longest + task.reference.answer_tokens + 1),
                "KINDLING_PREFILL_CHUNK": str(PREFILL_CHUNK),
                "KINDLING_QUEUE_LIMIT": str(len(task.reference.answers)),
            }
        ),
    )


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main()
