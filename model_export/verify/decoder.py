"""The gates between an exported decoder and its artefact, in the verifying process.

1. The runtime's tokenizer and chat template give transformers' ids on the corpus: tokens.py.
2. The conversion is right in fp32, on the model cut to one of each kind of layer: conversion.py.
3. The quantised graph stays within the recipe's limits of the whole model in fp32: drift.py.

An artefact that has passed is given its baked prefix, which the engine has to compute too.
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
from model_export.verify.drift import RecordedLogits, check_drift, compare
from model_export.verify.exchange import (
    DecoderGates,
    DecoderReference,
    DriftRequest,
    Outcome,
    VerifyRequest,
)
from model_export.verify.prefix import bake
from model_export.verify.tokens import check_tokens

SHOWN_TOKENS = 20
"""Of the answer that the manifest has for people."""


def verify_decoder(request: VerifyRequest, gates: DecoderGates, report: Report) -> Outcome:
    """Runs the gates in order, then bakes the prefix. Raises ExportError."""
    figures = _run_gates(request, gates, report)
    return Outcome(figures=figures, failure=None, prefix=_bake(request, gates, report))


def _run_gates(request: VerifyRequest, gates: DecoderGates, report: Report) -> dict[str, Any]:
    reference, cut = gates.reference, gates.reference.cut
    artifact = Artifact.open(request.quantised)
    tokenizer = Tokenizer.load(artifact.tokenizer)
    template = ChatTemplate.of(artifact)
    report("verify: gate 1, ids of texts and chats")
    tokens = check_tokens(reference, tokenizer, template)
    report(f"verify: gate 2, {len(cut.answers)} answers of the fp32 graph")
    conversion = check_conversion(cut, request.fp32 / GRAPH, tokenizer, request.threads)
    report("verify: gate 3, drift of the quantised graph")
    return {
        "tokens": tokens,
        "greedy": conversion,
        "drift": _drift(request, gates, artifact, tokenizer),
        "answer": _first_answer(request, reference, artifact, tokenizer),
    }


def _drift(
    request: VerifyRequest, gates: DecoderGates, artifact: Artifact, tokenizer: Tokenizer
) -> dict[str, Any]:
    windows = gates.reference.windows
    fp32 = RecordedLogits(gates.reference.logits, artifact.manifest.vocab_size)
    quantised = _session(artifact.graph, request.threads, windows)
    return check_drift(compare(fp32, quantised, windows), gates.tolerance, windows, tokenizer)


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


def _bake(request: VerifyRequest, gates: DecoderGates, report: Report) -> PrefixInfo | None:
    if gates.system_prompt is None:
        return None
    artifact = Artifact.open(request.quantised)
    info = bake(artifact, gates.system_prompt, request.threads)
    megabytes = artifact.prefix.stat().st_size / 1e6
    report(f"prefix: {info.tokens} tokens, {megabytes:.1f} MB")
    return info
