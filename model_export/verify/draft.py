"""Measures a draft model in the artefact: how often its first choice is the model's.

On two kinds of text: the held-out half of the evaluation text, and the quantised model's own greedy
answers to the corpus's chats. A draft continues a true beginning up to its first wrong id, so the
choices after each true beginning say what comes true of drafts of any length. They are the same on
every CPU, as the kernels' bits are (docs/kernels.md), and only choices are kept, no logits.

A draft model of the model's own layers reads here a cache of its own, which holds the same bits.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from handlers.artifact.manifest import DRAFT_GRAPH
from handlers.engine.engine import Engine
from handlers.engine.params import SamplingParams
from handlers.engine.session import Session
from model_export.recipe import DraftTable
from model_export.reporting import ExportError, Report
from model_export.verify.corpus import corpus
from model_export.verify.drift import CHUNK, batch_at
from model_export.verify.exchange import DecoderReference, MeasuredDraft
from model_export.verify.speculation import DraftPrediction, predict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from handlers.artifact.manifest import Artifact
    from model_export.verify.speculation import Hits

    Ids = NDArray[np.int64]

ANSWER_TOKENS = 64
"""Of each answer, all of which are computed in one batch."""


def measure_draft(
    artifact: Artifact,
    wanted: DraftTable,
    reference: DecoderReference,
    choices: Ids,
    step_cost: float,
    threads: int,
    report: Report,
) -> MeasuredDraft:
    """Returns the figures of the artefact's draft model, whose step takes `step_cost` calls.

    `choices`: those of the quantised model on the reference's windows. Raises ExportError where the
    draft model would not pay.
    """
    report("verify: the draft model's guesses")
    answers = greedy_answers(artifact, reference, threads)
    hits = _hits(artifact.directory / DRAFT_GRAPH, reference.windows, choices, answers, threads)
    prediction = predict(hits, step_cost)
    report(f"draft: {prediction}")
    check_gain(prediction, wanted)
    return MeasuredDraft(acceptance=prediction.acceptance, measured=prediction.figures())


def check_gain(prediction: DraftPrediction, wanted: DraftTable) -> None:
    """Raises ExportError where the draft model would not pay."""
    if prediction.best.gain >= wanted.min_gain:
        return
    other = (
        f"Instead of {wanted.layers} name fewer layers, or more ([draft] layers; --plan has a "
        f"table)"
        if wanted.layers
        else "Name another recipe, of a smaller model or one that is nearer to this"
    )
    raise ExportError(
        f"The draft model would not pay: {prediction}, and [draft] min_gain is "
        f"{wanted.min_gain:g}. {other}, or leave [draft] out."
    )


def greedy_answers(
    artifact: Artifact, reference: DecoderReference, threads: int
) -> list[tuple[list[int], list[int]]]:
    """Returns prompts and the quantised model's answers to them.

    They are the corpus's chats; its completions where the model has no chat template.
    """
    completions = [
        each.ids_with_special_tokens
        for each in reference.texts
        if each.text in corpus().completions
    ]
    asked = [chat.ids for chat in reference.chats] or completions
    longest = artifact.manifest.context_length - ANSWER_TOKENS - 1
    prompts = [ids for ids in asked if len(ids) <= longest]
    if not prompts:
        return []
    capacity = max(map(len, prompts)) + ANSWER_TOKENS + 1
    session = Session(artifact.graph, threads=threads, slots=len(prompts), capacity=capacity)
    engine = Engine(
        session,
        eos_token_ids=artifact.manifest.eos_token_ids,
        slots=len(prompts),
        context_length=capacity,
        prefill_chunk=CHUNK,
        prompt_lookup=True,
        queue_limit=0,
    )
    params = SamplingParams(max_tokens=ANSWER_TOKENS, temperature=0.0)
    generations = [engine.submit(ids, params) for ids in prompts]
    answers = [
        [step.token_id for step in generation if step.token_id is not None]
        for generation in generations
    ]
    return list(zip(prompts, answers, strict=True))


def _hits(
    graph: Path,
    windows: list[list[int]],
    choices: Ids,
    answers: list[tuple[list[int], list[int]]],
    threads: int,
) -> dict[str, Hits]:
    """Compares the draft model's choices with the model's, on each kind of text."""
    texts = [*windows, *(prompt + answer for prompt, answer in answers)]
    session = Session(graph, threads=threads, slots=1, capacity=max(map(len, texts)))
    ends = np.cumsum([len(window) for window in windows])
    hits: dict[str, Hits] = {
        "text": [
            choices_of(session, window) == chosen
            for window, chosen in zip(windows, np.split(choices, ends[:-1]), strict=True)
        ]
    }
    # An answer's first id is of its prompt's call: drafts begin after it.
    own = [
        choices_of(session, prompt + answer)[len(prompt) : -1] == np.array(answer[1:], np.int64)
        for prompt, answer in answers
        if len(answer) > 1
    ]
    if own:
        hits["chats"] = own
    return hits


def choices_of(session: Session, ids: list[int]) -> Ids:
    """Returns the first choice after each of `ids`."""
    text = np.array(ids, np.int64)
    starts = range(0, len(text), CHUNK)
    return np.concatenate([session.step(batch_at(text, start)).argmax(axis=1) for start in starts])
