"""Gate 2: the fp32 graph answers as transformers does, alone and in a batch.

Both compute in fp32 but add in another order, so a logit may differ in its last digits. Where
transformers' two best tokens are closer than TIE, either is right and the answers part for
good: such a prompt is compared up to there. The figures say how often that happened; where it
leaves less than half of all tokens to compare, the gate fails.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from handlers.engine.engine import Engine
from handlers.engine.generation import Generation
from handlers.engine.params import FinishReason, SamplingParams
from handlers.text.tokenizer import Tokenizer
from model_export.reporting import ExportError
from model_export.verify.exchange import Answer, Reference

TIE = 1e-3
"""Logits. Ten times the largest difference seen between torch and ONNX Runtime on SmolLM2-135M."""


Collected = tuple[list[int], FinishReason | None]


def check_greedy(reference: Reference, engine: Engine, tokenizer: Tokenizer) -> dict[str, Any]:
    """The gate's figures. Raises ExportError at the first difference."""
    params = SamplingParams(max_tokens=reference.answer_tokens, temperature=0.0)
    prompts = [answer.prompt_ids for answer in reference.answers]
    # All at once: rows join, leave and read their prompts in chunks while others decode. First,
    # while no slot holds a prompt that could be reused; alone, some then are.
    together = [_collect(generation) for generation in [engine.submit(p, params) for p in prompts]]
    alone = [_collect(engine.submit(ids, params)) for ids in prompts]
    for mode, collected in (("alone", alone), ("in a batch", together)):
        for answer, (ids, reason) in zip(reference.answers, collected, strict=True):
            _check(answer, ids, reason, mode, tokenizer)
    _check_batch(reference.answers, alone, together, tokenizer)
    comparable = [_comparable(answer) for answer in reference.answers]
    _check_share(sum(comparable), sum(len(answer.margins) for answer in reference.answers))
    return {
        "prompts": len(prompts),
        "tokens": sum(comparable),
        "ties": sum(n < len(a.margins) for n, a in zip(comparable, reference.answers, strict=True)),
    }


def _collect(generation: Generation) -> Collected:
    steps: Iterable[Any] = list(generation)
    ids = [step.token_id for step in steps if step.token_id is not None]
    return ids, next((step.finish_reason for step in steps if step.finish_reason), None)


def _comparable(answer: Answer) -> int:
    """Steps before transformers' first tie."""
    return next((n for n, margin in enumerate(answer.margins) if margin < TIE), len(answer.margins))


def _check(
    answer: Answer, ids: list[int], reason: FinishReason | None, mode: str, tokenizer: Tokenizer
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
    answers: list[Answer], alone: list[Collected], together: list[Collected], tokenizer: Tokenizer
) -> None:
    """Beyond a tie too, a neighbour in the batch changes nothing."""
    for answer, one, other in zip(answers, alone, together, strict=True):
        if one != other:
            raise ExportError(
                f"Gate 2 failed: the fp32 graph answers {answer.prompt[-200:]!r} with "
                f"{tokenizer.decode(one[0])!r} alone, with {tokenizer.decode(other[0])!r} in a "
                f"batch."
            )


def _check_share(compared: int, tokens: int) -> None:
    if 2 * compared < tokens:
        raise ExportError(
            f"Gate 2 failed: ties of transformers' best two leave {compared} of {tokens} tokens to "
            f"compare, which proves nothing. Are these the weights of a trained model?"
        )
