"""The gates between an exported decoder and its artefact, in the verifying process.

1. The runtime's tokenizer and chat template give transformers' ids on the corpus. Both are
   re-implementations here (tokenizers alone, jinja2 alone), and a single wrong space before a
   role's name makes a model worse without making it fail.
2. The conversion is right in fp32, on the model cut to one of each kind of layer (decoder/cut.py).
   The cut graph answers every prompt of the corpus as transformers does, alone and in a batch, and
   gives its logits of one long prompt. Both compute in fp32 but add in another order, so a logit
   may differ in its last digits. Where transformers' two best tokens are closer than TIE, either is
   right and the answers part for good: such a prompt is compared up to there. The figures say how
   often that happened; where it leaves less than half of all tokens to compare, the gate fails.
3. The quantised graph stays within the recipe's limits of the whole model in fp32: drift.py.

An artefact that has passed is given its baked prefix, which the engine has to compute too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from handlers.artifact.manifest import GRAPH, Artifact, PrefixInfo
from handlers.config import Settings
from handlers.engine.engine import Engine, Generation
from handlers.engine.params import FinishReason, SamplingParams
from handlers.engine.session import Session
from handlers.errors import InvalidRequest
from handlers.text.chat_template import ChatTemplate
from handlers.text.tokenizer import Tokenizer
from model_export.reporting import ExportError, Report
from model_export.verify.drift import RecordedLogits, check_drift, compare
from model_export.verify.exchange import (
    CutReference,
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
SHOWN_TOKENS = 20
"""Of the answer that the manifest has for people."""
EXACT_KL = 1e-6
"""Nats. Far above what another order of additions makes, 1e-11 with three layers of SmolLM2-135M,
and far below what a wrong window or a rotary embedding off by one position does."""

Collected = tuple[list[int], FinishReason | None]


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
    greedy = check_greedy(cut, cut_engine(request.fp32 / GRAPH, cut, request.threads), tokenizer)
    exact = check_logits(cut, request.fp32 / GRAPH, request.threads)
    report("verify: gate 3, drift of the quantised graph")
    return {
        "tokens": tokens,
        "greedy": greedy | exact,
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


def _session(graph: Path, threads: int, windows: list[list[int]]) -> Session:
    return Session(graph, threads=threads, slots=1, capacity=max(map(len, windows)))


def _first_answer(
    request: VerifyRequest, reference: DecoderReference, artifact: Artifact, tokenizer: Tokenizer
) -> dict[str, str]:
    """Answers the corpus's first prompt with the quantised graph, for a person to read."""
    first = reference.first_prompt
    limit = min(SHOWN_TOKENS, artifact.manifest.context_length - len(first.ids) - 1)
    settings = _settings(request.threads, len(first.ids) + limit + 1, 1)
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


def cut_engine(graph: Path, cut: CutReference, threads: int) -> Engine:
    """Loads the fp32 graph of the cut model, which is no artefact."""
    longest = max(len(answer.prompt_ids) for answer in cut.answers)
    settings = _settings(threads, longest + cut.answer_tokens + 1, len(cut.answers))
    session = Session(
        graph,
        threads=settings.threads,
        slots=settings.slots,
        capacity=settings.context_length,
    )
    return Engine(
        session,
        vocab_size=session.vocab_size,
        eos_token_ids=cut.eos_token_ids,
        slots=settings.slots,
        context_length=settings.context_length,
        prefill_chunk=settings.prefill_chunk,
        prompt_lookup=settings.prompt_lookup,
        queue_limit=settings.queue_limit,
    )


def _settings(threads: int, context_length: int, queue_limit: int) -> Settings:
    return Settings.from_environ(
        {
            "KINDLING_THREADS": str(threads),
            "KINDLING_CONTEXT_LENGTH": str(context_length),
            "KINDLING_PREFILL_CHUNK": str(PREFILL_CHUNK),
            "KINDLING_QUEUE_LIMIT": str(queue_limit),
        }
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


def check_logits(cut: CutReference, graph: Path, threads: int) -> dict[str, Any]:
    """Compares the cut graph's logits of the last prompt with transformers'. Raises ExportError."""
    windows = [cut.answers[-1].prompt_ids]
    said = RecordedLogits(cut.logits, len(cut.vocabulary))
    drift = compare(said, _session(graph, threads, windows), windows).summary()
    if not drift.kl <= EXACT_KL:  # a NaN is not
        raise ExportError(
            f"Gate 2 failed: the fp32 graph's logits of {drift.tokens} tokens are not "
            f"transformers': their mean KL divergence is {drift.kl:.2g}, where the order of "
            f"additions explains {EXACT_KL:g}."
        )
    return {"kl": drift.kl, "layers": cut.layers}


def check_greedy(cut: CutReference, engine: Engine, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the figures of the answers of gate 2. Raises ExportError at the first difference."""
    text_of = partial(_text_of, cut.vocabulary, tokenizer)
    params = SamplingParams(max_tokens=cut.answer_tokens, temperature=0.0)
    prompts = [answer.prompt_ids for answer in cut.answers]
    # All at once: rows join, leave and prefill in chunks while others decode. First,
    # while no slot holds a prompt that could be reused; alone, some then are.
    together = [_collect(generation) for generation in [engine.submit(p, params) for p in prompts]]
    alone = [_collect(engine.submit(ids, params)) for ids in prompts]
    for mode, collected in (("alone", alone), ("in a batch", together)):
        for answer, (ids, reason) in zip(cut.answers, collected, strict=True):
            _check_answer(answer, ids, reason, mode, text_of)
    _check_batch(cut.answers, alone, together, text_of)
    comparable = [_comparable(answer) for answer in cut.answers]
    _check_comparable_share(sum(comparable), sum(len(answer.margins) for answer in cut.answers))
    return {
        "prompts": len(prompts),
        "tokens": sum(comparable),
        "ties": sum(n < len(a.margins) for n, a in zip(comparable, cut.answers, strict=True)),
    }


def _text_of(vocabulary: list[int], tokenizer: Tokenizer, rows: list[int]) -> str:
    """Decodes rows of a cut vocabulary."""
    return tokenizer.decode([vocabulary[row] for row in rows])


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
    text_of: Callable[[list[int]], str],
) -> None:
    expected = [*answer.ids, None] if answer.ended else list(answer.ids)
    found = [*ids, None] if reason is FinishReason.EOS else list(ids)
    for step in range(_comparable(answer)):
        if step < len(found) and found[step] == expected[step]:
            continue
        raise ExportError(
            f"Gate 2 failed: the fp32 graph, {mode}, answers {answer.prompt[-200:]!r} with "
            f"{text_of(ids)!r}, transformers with {text_of(answer.ids)!r}; they "
            f"part at token {step}, where transformers' best two are {answer.margins[step]:.4f} "
            f"apart."
        )


def _check_batch(
    answers: list[GreedyAnswer],
    alone: list[Collected],
    together: list[Collected],
    text_of: Callable[[list[int]], str],
) -> None:
    """Refuses an answer that its neighbours in a batch change, beyond a tie too."""
    for answer, one, other in zip(answers, alone, together, strict=True):
        if one != other:
            raise ExportError(
                f"Gate 2 failed: the fp32 graph answers {answer.prompt[-200:]!r} with "
                f"{text_of(one[0])!r} alone, with {text_of(other[0])!r} in a "
                f"batch."
            )


def _check_comparable_share(compared: int, tokens: int) -> None:
    if 2 * compared < tokens:
        raise ExportError(
            f"Gate 2 failed: ties of transformers' best two leave {compared} of {tokens} tokens to "
            f"compare, which proves nothing. Are these the weights of a trained model?"
        )
