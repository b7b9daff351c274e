"""Gate 2 of decoders: the conversion is right in fp32, on the model cut to a few layers.

The cut graph (decoder/cut.py) answers every prompt of the corpus as transformers does, alone and in
a batch, and gives its logits of one long prompt. Both compute in fp32 but add in another order, so
a logit may differ in its last digits. Where transformers' two best tokens are closer than TIE,
either is right and the answers part for good: such a prompt is compared up to there. The figures
say how often that happened; where it leaves less than half of all tokens to compare, the gate
fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from handlers.engine.engine import Engine, Generation
from handlers.engine.params import FinishReason, SamplingParams
from handlers.engine.session import Session
from handlers.text.tokenizer import Tokenizer
from model_export.reporting import ExportError
from model_export.verify.drift import RecordedLogits, compare
from model_export.verify.exchange import CutReference, GreedyAnswer

SLOTS = 4
"""As many as a server has by default."""
PREFILL_CHUNK = 16
"""Tokens. So long prompts span many steps while others decode; alone, the engine is free to take
larger chunks. Both are compared with transformers."""
TIE = 1e-3
"""Logits. Ten times the largest difference seen between torch and ONNX Runtime on SmolLM2-135M."""
EXACT_KL = 1e-6
"""Nats. Far above what another order of additions makes, 1e-11 with three layers of SmolLM2-135M,
and far below what a wrong window or a rotary embedding off by one position does."""

Collected = tuple[list[int], FinishReason | None]


def check_conversion(
    cut: CutReference, graph: Path, tokenizer: Tokenizer, threads: int
) -> dict[str, Any]:
    """Returns the figures of gate 2. Raises ExportError at the first difference."""
    greedy = check_greedy(cut, cut_engine(graph, cut, threads), tokenizer)
    return greedy | check_logits(cut, graph, threads)


def cut_engine(graph: Path, cut: CutReference, threads: int) -> Engine:
    """Loads the fp32 graph of the cut model, which is no artefact."""
    longest = max(len(answer.prompt_ids) for answer in cut.answers)
    capacity = longest + cut.answer_tokens + 1
    session = Session(graph, threads=threads, slots=SLOTS, capacity=capacity)
    return Engine(
        session,
        eos_token_ids=cut.eos_token_ids,
        slots=SLOTS,
        context_length=capacity,
        prefill_chunk=PREFILL_CHUNK,
        prompt_lookup=True,
        queue_limit=len(cut.answers),
    )


def check_logits(cut: CutReference, graph: Path, threads: int) -> dict[str, Any]:
    """Compares the cut graph's logits of the last prompt with transformers'. Raises ExportError."""
    prompt = cut.answers[-1].prompt_ids
    said = RecordedLogits(cut.logits, len(cut.vocabulary))
    session = Session(graph, threads=threads, slots=1, capacity=len(prompt))
    drift = compare(said, session, [prompt]).summary()
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
