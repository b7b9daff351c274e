"""The gates between an exported decoder and its artefact, in the verifying process.

1. The runtime's tokenizer and chat template give transformers' ids on the corpus. Both are
   re-implementations here (tokenizers alone, jinja2 alone), and a single wrong space before a
   role's name makes a model worse without making it fail.
2. The fp32 graph answers every prompt of the corpus as transformers does, alone and in a batch.
   Both compute in fp32 but add in another order, so a logit may differ in its last digits. Where
   transformers' two best tokens are closer than TIE, either is right and the answers part for good:
   such a prompt is compared up to there. The figures say how often that happened; where it leaves
   less than half of all tokens to compare, the gate fails.
3. The quantised graph stays within the recipe's limits of the fp32 graph: drift.py.

An artefact that has passed is given its baked prefix, which the engine has to compute too.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from handlers.artifact.manifest import Artifact, PrefixInfo
from handlers.config import Settings
from handlers.engine.engine import Engine, Generation
from handlers.engine.params import FinishReason, SamplingParams
from handlers.engine.session import Session
from handlers.errors import InvalidRequest
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from model_export.reporting import ExportError, Report
from model_export.verify.corpus import evaluation_text
from model_export.verify.drift import WINDOW, check_drift, compare, windows_of
from model_export.verify.exchange import (
    DecoderGates,
    DecoderReference,
    EncodedText,
    GreedyAnswer,
    Outcome,
    RefusedChat,
    RenderedChat,
    VerifyRequest,
)
from model_export.verify.prefix import bake

PREFILL_CHUNK = 16
"""Tokens. So long prompts span many steps while others decode; alone, the engine is free to take
larger chunks. Gate 2 compares both with transformers."""
TIE = 1e-3
"""Logits. Ten times the largest difference seen between torch and ONNX Runtime on SmolLM2-135M."""

Collected = tuple[list[int], FinishReason | None]


def verify_decoder(request: VerifyRequest, gates: DecoderGates, report: Report) -> Outcome:
    """Runs the gates in order, then bakes the prefix. Raises ExportError."""
    figures = _run_gates(request, gates, report)
    return Outcome(figures=figures, failure=None, prefix=_bake(request, gates, report))


def _run_gates(request: VerifyRequest, gates: DecoderGates, report: Report) -> dict[str, Any]:
    reference = gates.reference
    artifact = Artifact.open(request.quantised)
    tokenizer = Tokenizer.load(artifact.tokenizer)
    template = ChatTemplate.of(artifact)
    report("verify: gate 1, ids of texts and chats")
    tokens = check_tokens(reference, tokenizer, template)
    report(f"verify: gate 2, {len(reference.answers)} answers of the fp32 graph")
    fp32 = _engine(Artifact.open(request.fp32), reference, request.threads)
    greedy = check_greedy(reference, fp32, tokenizer)
    report("verify: gate 3, drift of the quantised graph")
    return {
        "tokens": tokens,
        "greedy": greedy,
        "drift": _drift(request, gates, artifact, tokenizer),
        "answer": _first_answer(request, reference, artifact, tokenizer),
    }


def _drift(
    request: VerifyRequest, gates: DecoderGates, artifact: Artifact, tokenizer: Tokenizer
) -> dict[str, Any]:
    windows = windows_of(evaluation_text(), tokenizer, artifact.manifest.context_length)
    fp32, quantised = (
        Session(directory / artifact.graph.name, threads=request.threads, slots=1, capacity=WINDOW)
        for directory in (request.fp32, request.quantised)
    )
    return check_drift(compare(fp32, quantised, windows), gates.tolerance, windows, tokenizer)


def _first_answer(
    request: VerifyRequest, reference: DecoderReference, artifact: Artifact, tokenizer: Tokenizer
) -> dict[str, str]:
    """Answers the corpus's first prompt with the quantised graph, for a person to read."""
    first = reference.answers[0]
    params = SamplingParams(max_tokens=reference.answer_tokens, temperature=0.0)
    steps = _engine(artifact, reference, request.threads).submit(first.prompt_ids, params)
    ids = [step.token_id for step in steps if step.token_id is not None]
    return {
        "prompt": first.prompt,
        "fp32": tokenizer.decode(first.ids),
        "text": tokenizer.decode(ids),
    }


def _bake(request: VerifyRequest, gates: DecoderGates, report: Report) -> PrefixInfo | None:
    if gates.system_prompt is None:
        return None
    artifact = Artifact.open(request.quantised)
    info = bake(artifact, gates.system_prompt, request.threads)
    megabytes = artifact.prefix.stat().st_size / 1e6
    report(f"prefix: {info.tokens} tokens, {megabytes:.1f} MB")
    return info


def _engine(artifact: Artifact, reference: DecoderReference, threads: int) -> Engine:
    longest = max(len(answer.prompt_ids) for answer in reference.answers)
    return Engine.load(
        artifact,
        Settings.from_environ(
            {
                "KINDLING_THREADS": str(threads),
                "KINDLING_CONTEXT_LENGTH": str(longest + reference.answer_tokens + 1),
                "KINDLING_PREFILL_CHUNK": str(PREFILL_CHUNK),
                "KINDLING_QUEUE_LIMIT": str(len(reference.answers)),
            }
        ),
    )


def check_tokens(
    reference: DecoderReference, tokenizer: Tokenizer, template: ChatTemplate
) -> dict[str, Any]:
    """Returns the figures of gate 1. Raises ExportError at the first difference."""
    for encoded in reference.texts:
        _check_text(encoded, tokenizer)
    for chat in reference.chats:
        _check_chat(chat, tokenizer, template)
    for refusal in reference.refusals:
        _check_refusal(refusal, template)
    return {
        "texts": len(reference.texts),
        "chats": len(reference.chats),
        "refused_chats": len(reference.refusals),
    }


def _check_text(encoded: EncodedText, tokenizer: Tokenizer) -> None:
    for add_special_tokens, expected in (
        (False, encoded.ids),
        (True, encoded.ids_with_special_tokens),
    ):
        ids = tokenizer.encode(encoded.text, add_special_tokens=add_special_tokens)
        if ids != expected:
            raise _ids_differ(encoded.text, expected, ids)


def _check_chat(chat: RenderedChat, tokenizer: Tokenizer, template: ChatTemplate) -> None:
    rendered = template.render(chat.messages)
    if rendered != chat.rendered:
        raise ExportError(
            f"Gate 1 failed: the runtime renders the chat {chat.messages!r} as {rendered!r}, "
            f"transformers as {chat.rendered!r}."
        )
    ids = tokenizer.encode(rendered)
    if ids != chat.ids:
        raise _ids_differ(rendered, chat.ids, ids)


def _check_refusal(refusal: RefusedChat, template: ChatTemplate) -> None:
    try:
        rendered = template.render(refusal.messages)
    except InvalidRequest:
        return
    raise ExportError(
        f"Gate 1 failed: the runtime renders the chat {refusal.messages!r} as {rendered!r}, "
        f"transformers refuses it: {refusal.reason}."
    )


def _ids_differ(text: str, expected: list[int], ids: list[int]) -> ExportError:
    shared = next(
        (n for n, pair in enumerate(zip(expected, ids, strict=False)) if pair[0] != pair[1]),
        min(len(expected), len(ids)),
    )
    return ExportError(
        f"Gate 1 failed: for {text[:200]!r} the runtime's ids differ from transformers' at "
        f"position {shared}: {ids[shared : shared + 8]} where {expected[shared : shared + 8]} "
        f"is expected."
    )


def check_greedy(
    reference: DecoderReference, engine: Engine, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Returns the figures of gate 2. Raises ExportError at the first difference."""
    params = SamplingParams(max_tokens=reference.answer_tokens, temperature=0.0)
    prompts = [answer.prompt_ids for answer in reference.answers]
    # All at once: rows join, leave and prefill in chunks while others decode. First,
    # while no slot holds a prompt that could be reused; alone, some then are.
    together = [_collect(generation) for generation in [engine.submit(p, params) for p in prompts]]
    alone = [_collect(engine.submit(ids, params)) for ids in prompts]
    for mode, collected in (("alone", alone), ("in a batch", together)):
        for answer, (ids, reason) in zip(reference.answers, collected, strict=True):
            _check_answer(answer, ids, reason, mode, tokenizer)
    _check_batch(reference.answers, alone, together, tokenizer)
    comparable = [_comparable(answer) for answer in reference.answers]
    _check_comparable_share(
        sum(comparable), sum(len(answer.margins) for answer in reference.answers)
    )
    return {
        "prompts": len(prompts),
        "tokens": sum(comparable),
        "ties": sum(n < len(a.margins) for n, a in zip(comparable, reference.answers, strict=True)),
    }


def _collect(generation: Generation) -> Collected:
    steps: Iterable[Any] = list(generation)
    ids = [step.token_id for step in steps if step.token_id is not None]
    return ids, next((step.finish_reason for step in steps if step.finish_reason), None)


def _comparable(answer: GreedyAnswer) -> int:
    """Counts the steps before transformers' first tie."""
    return next((n for n, margin in enumerate(answer.margins) if margin < TIE), len(answer.margins))


def _check_answer(
    answer: GreedyAnswer,
    ids: list[int],
    reason: FinishReason | None,
    mode: str,
    tokenizer: Tokenizer,
) -> None:
    expected = [*answer.ids, None] if answer.ended else list(answer.ids)
    found = [*ids, None] if reason is FinishReason.EOS else list(ids)
    for step in range(_comparable(answer)):
        if step < len(found) and found[step] == expected[step]:
            continue
        raise ExportError(
            f"Gate 2 failed: the fp32 graph, {mode}, answers {answer.prompt[-200:]!r} with "
            f"{tokenizer.decode(ids)!r}, transformers with {tokenizer.decode(answer.ids)!r}; they "
            f"part at token {step}, where transformers' best two are {answer.margins[step]:.4f} "
            f"apart."
        )


def _check_batch(
    answers: list[GreedyAnswer],
    alone: list[Collected],
    together: list[Collected],
    tokenizer: Tokenizer,
) -> None:
    """Refuses an answer that its neighbours in a batch change, beyond a tie too."""
    for answer, one, other in zip(answers, alone, together, strict=True):
        if one != other:
            raise ExportError(
                f"Gate 2 failed: the fp32 graph answers {answer.prompt[-200:]!r} with "
                f"{tokenizer.decode(one[0])!r} alone, with {tokenizer.decode(other[0])!r} in a "
                f"batch."
            )


def _check_comparable_share(compared: int, tokens: int) -> None:
    if 2 * compared < tokens:
        raise ExportError(
            f"Gate 2 failed: ties of transformers' best two leave {compared} of {tokens} tokens to "
            f"compare, which proves nothing. Are these the weights of a trained model?"
        )
