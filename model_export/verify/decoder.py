"""The gates between an exported decoder and its artefact, in the verifying process.

1. The runtime's tokenizer and chat template give transformers' ids on the corpus: tokens.py.
2. The conversion is right in fp32, on the model cut to one of each kind of layer: conversion.py.
3. The quantised graph stays within the recipe's limits of the whole model in fp32: drift.py.

Of an artefact that has passed the draft model is measured (draft.py), if it has one, and it is
given its baked prefix, which the engine has to compute too.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from handlers.artifact.manifest import GRAPH, Artifact, PrefixInfo
from handlers.config import Settings
from handlers.engine.engine import Engine
from handlers.engine.params import SamplingParams
from handlers.engine.session import Session
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from model_export.reporting import Report
from model_export.verify.conversion import check_conversion
from model_export.verify.draft import measure_draft
from model_export.verify.drift import Comparison, RecordedLogits, check_drift, compare
from model_export.verify.exchange import (
    DecoderGates,
    DecoderReference,
    DriftRequest,
    MeasuredDraft,
    Outcome,
    VerifyRequest,
)
from model_export.verify.prefix import bake
from model_export.verify.tokens import check_tokens

SHOWN_TOKENS = 20
"""Of the answer that the manifest has for people."""


def verify_decoder(request: VerifyRequest, gates: DecoderGates, report: Report) -> Outcome:
    """Runs the gates in order, then measures the draft and bakes the prefix. Raises ExportError."""
    figures, comparison = _run_gates(request, gates, report)
    draft = _draft(request, gates, comparison, report)
    prefix = _bake(request, gates, report)
    return Outcome(figures=figures, failure=None, prefix=prefix, draft=draft)


def _run_gates(
    request: VerifyRequest, gates: DecoderGates, report: Report
) -> tuple[dict[str, Any], Comparison]:
    reference, cut = gates.reference, gates.reference.cut
    artifact = Artifact.open(request.quantised)
    tokenizer = Tokenizer.load(artifact.tokenizer)
    template = ChatTemplate.of(artifact)
    report("verify: gate 1, ids of texts and chats")
    tokens = check_tokens(reference, tokenizer, template)
    report(f"verify: gate 2, {len(cut.answers)} answers of the fp32 graph")
    conversion = check_conversion(cut, request.fp32 / GRAPH, tokenizer, request.threads)
    report("verify: gate 3, drift of the quantised graph")
    windows, comparison = reference.windows, _compare(request, reference, artifact)
    figures = {
        "tokens": tokens,
        "greedy": conversion,
        "drift": check_drift(comparison, gates.tolerance, windows, tokenizer),
        "answer": _first_answer(request, reference, artifact, tokenizer),
    }
    return figures, comparison


def _compare(request: VerifyRequest, reference: DecoderReference, artifact: Artifact) -> Comparison:
    fp32 = RecordedLogits(reference.logits, artifact.manifest.vocab_size)
    quantised = _session(artifact.graph, request.threads, reference.windows)
    return compare(fp32, quantised, reference.windows)


def measure_drift(request: DriftRequest) -> Outcome:
    """Measures the three figures of gate 3, and holds them to no limit."""
    fp32 = RecordedLogits(request.logits, request.vocabulary, rows=request.skipped)
    quantised = _session(request.graph, request.threads, request.windows)
    drift = compare(fp32, quantised, request.windows).summary()
    return Outcome(figures=asdict(drift), failure=None)


def _session(graph: Path, threads: int, windows: list[list[int]]) -> Session:
    return Session(graph, threads=threads, slots=1, capacity=max(map(len, windows)))


def _first_answer(
    request: VerifyRequest, reference: DecoderReference, artifact: Artifact, tokenizer: Tokenizer
) -> dict[str, str]:
    """Answers the corpus's first prompt with the quantised graph, for a person to read."""
    first = reference.first_prompt
    limit = min(SHOWN_TOKENS, artifact.manifest.context_length - len(first.ids) - 1)
    settings = Settings.from_environ(
        {
            "KINDLING_THREADS": str(request.threads),
            "KINDLING_CONTEXT_LENGTH": str(len(first.ids) + limit + 1),
        }
    )
    params = SamplingParams(max_tokens=limit, temperature=0.0)
    steps = Engine.load(artifact, settings).submit(first.ids, params)
    ids = [step.token_id for step in steps if step.token_id is not None]
    return {"prompt": first.text, "text": tokenizer.decode(ids)}


def _draft(
    request: VerifyRequest, gates: DecoderGates, comparison: Comparison, report: Report
) -> MeasuredDraft | None:
    if gates.draft is None or request.step_cost is None:
        return None
    return measure_draft(
        Artifact.open(request.quantised),
        gates.draft,
        gates.reference,
        comparison.quantised_top1,
        request.step_cost,
        request.threads,
        report,
    )


def _bake(request: VerifyRequest, gates: DecoderGates, report: Report) -> PrefixInfo | None:
    if gates.system_prompt is None:
        return None
    artifact = Artifact.open(request.quantised)
    info = bake(artifact, gates.system_prompt, request.threads, draft=_draft_has_cache(gates))
    megabytes = artifact.prefix.stat().st_size / 1e6
    report(f"prefix: {info.tokens} tokens, {megabytes:.1f} MB")
    return info


def _draft_has_cache(gates: DecoderGates) -> bool:
    """Tells whether there is a draft model of other weights; of own layers the cache is shared."""
    return gates.draft is not None and gates.draft.layers is None
