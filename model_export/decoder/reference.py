"""Asks transformers for what a decoder's export has to reproduce: ids, chats, answers, logits.

The only part of the gates that needs torch. It runs before the export, and its result is plain
data, and two files of logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2

from model_export.decoder.generation_config import stop_token_ids
from model_export.recipe import DecoderRecipe
from model_export.reporting import ExportError, Report
from model_export.verify.corpus import corpus, evaluation_text
from model_export.verify.drift import for_choosing, held_out, windows_of
from model_export.verify.exchange import (
    CutReference,
    DecoderReference,
    EncodedText,
    GreedyAnswer,
    Prompt,
    RefusedChat,
    RenderedChat,
)

if TYPE_CHECKING:
    from model_export.decoder.calibration import InputSquares
    from model_export.fetch.load import LoadedModel

ANSWER_TOKENS = 12
"""Of each answer, alone and in a batch. Each token alone reads all weights of the cut model, 0.5 GB
of a model of 1B."""
LEAST_PROMPTS = 4
"""Prompts of the corpus that must fit into the context, or gate 2 would prove nothing."""
LONG_PROMPT, LONGEST_PROMPT = 512, 1500
"""Tokens of the one long prompt: enough for a window to slide, up to what 2 cores read in 10 s."""


def make_reference(
    loaded: LoadedModel,
    recipe: DecoderRecipe,
    directory: Path,
    report: Report,
    inputs: InputSquares | None = None,
) -> DecoderReference:
    """Encodes the shipped corpus, and computes answers and logits; these go to `directory`.

    `inputs` measures what linear layers read of its windows, in the same pass as the logits.
    """
    context_length = recipe.export.context_length
    texts = [*corpus().texts, *corpus().completions, evaluation_text()]
    encoded = [EncodedText.of(text, loaded.tokenizer) for text in texts]
    chats, refusals = chats_of(loaded)
    prompts = prompts_of(loaded, chats, context_length)
    every = windows_of(encoded[-1], context_length)
    windows, choosing = held_out(every), for_choosing(every) if recipe.precision.is_searched else []
    cut = _cut_reference(loaded, prompts, directory / "cut.logits", report)
    return DecoderReference(
        texts=encoded,
        chats=chats,
        refusals=refusals,
        first_prompt=prompts[0],
        cut=cut,
        windows=windows,
        logits=_logits(loaded, windows + choosing, directory / "logits", report, inputs),
        vocabulary=loaded.vocabulary_size,
        choosing=choosing,
    )


def _cut_reference(
    loaded: LoadedModel, prompts: list[Prompt], path: Path, report: Report
) -> CutReference:
    """Answers the prompts with the model cut to one of each kind of layer."""
    from model_export.decoder.cut import cut_to_kinds
    from model_export.decoder.logits import record_logits

    eos = [token for token in stop_token_ids(loaded) if token < loaded.vocabulary_size]
    kept = sorted({token for prompt in prompts for token in prompt.ids} | set(eos))
    with cut_to_kinds(loaded.model, kept) as cut:
        report(f"reference: transformers' answers with its layers {_listed(cut.layers)}")
        row_of = {token: row for row, token in enumerate(cut.vocabulary)}
        rows = [[row_of[token] for token in prompt.ids] for prompt in prompts]
        ends = tuple(row_of[token] for token in eos)
        record_logits(loaded.model, [rows[-1]], path, lambda _: None)
        return CutReference(
            layers=list(cut.layers),
            vocabulary=list(cut.vocabulary),
            answers=[
                _answer(loaded.model, prompt.text, ids, ends)
                for prompt, ids in zip(prompts, rows, strict=True)
            ],
            answer_tokens=ANSWER_TOKENS,
            eos_token_ids=list(ends),
            logits=path,
        )


def _listed(layers: Sequence[int]) -> str:
    """Names layers: "0, 4 and 29"."""
    *first, last = map(str, layers)
    return f"{', '.join(first)} and {last}" if first else last


def _logits(
    loaded: LoadedModel,
    windows: list[list[int]],
    path: Path,
    report: Report,
    inputs: InputSquares | None,
) -> Path:
    """Computes the whole model's logits on the evaluation text."""
    from model_export.decoder.cut import layers_of
    from model_export.decoder.logits import record_logits

    tokens = sum(map(len, windows))
    way = "a layer at a time" if layers_of(loaded.model) else "whole, as its layers share caches"
    report(f"reference: transformers' logits of {tokens:,} tokens, {way}")
    record_logits(loaded.model, windows, path, report, inputs)
    return path


def chats_of(loaded: LoadedModel) -> tuple[list[RenderedChat], list[RefusedChat]]:
    """Renders the corpus's conversations by the model's template, which may refuse some.

    Gemma 2's takes no system message, for one. Raises ExportError when a template takes none.
    """
    chats: list[RenderedChat] = []
    refusals: list[RefusedChat] = []
    if loaded.chat_template is None:
        return chats, refusals
    for messages in (conversation.messages for conversation in corpus().chats):
        try:
            chats.append(_chat(loaded, messages))
        except jinja2.TemplateError as error:
            refusals.append(RefusedChat(messages=messages, reason=str(error)))
    if not chats:
        raise ExportError(
            f"The model's chat template refuses every conversation: {refusals[0].reason}"
        )
    return chats, refusals


def _chat(loaded: LoadedModel, messages: list[dict[str, str]]) -> RenderedChat:
    rendered = loaded.tokenizer.apply_chat_template(
        messages, chat_template=loaded.chat_template, tokenize=False, add_generation_prompt=True
    )
    ids = loaded.tokenizer.encode(str(rendered), add_special_tokens=False)
    return RenderedChat(messages=messages, rendered=str(rendered), ids=ids)


def prompts_of(loaded: LoadedModel, chats: list[RenderedChat], context_length: int) -> list[Prompt]:
    """Returns the prompts that leave room for a whole answer: in a real context, all.

    The last is a long one.
    """
    longest = context_length - ANSWER_TOKENS - 1
    prompts = [Prompt(text=chat.rendered, ids=chat.ids) for chat in chats]
    prompts += [
        Prompt(text=text, ids=loaded.tokenizer.encode(text, add_special_tokens=True))
        for text in corpus().completions
    ]
    fitting = [prompt for prompt in prompts if len(prompt.ids) <= longest]
    if len(fitting) < LEAST_PROMPTS:
        raise ExportError(
            f"Only {len(fitting)} prompts of the corpus fit into a context of {context_length} "
            f"tokens, too few to verify anything: raise [export] context_length."
        )
    return [*fitting, _long_prompt(loaded, longest)]


def _long_prompt(loaded: LoadedModel, longest: int) -> Prompt:
    """Returns the beginning of the evaluation text, longer than a sliding window if possible."""
    window = getattr(loaded.model.config.get_text_config(), "sliding_window", None) or 0
    length = min(longest, max(LONG_PROMPT, window + 64), LONGEST_PROMPT)
    ids = loaded.tokenizer.encode(evaluation_text(), add_special_tokens=True)[:length]
    return Prompt(text=loaded.tokenizer.decode(ids), ids=ids)


def _answer(model: Any, text: str, ids: list[int], eos: tuple[int, ...]) -> GreedyAnswer:
    import torch
    from transformers import GenerationConfig

    greedy = GenerationConfig(
        do_sample=False,
        max_new_tokens=ANSWER_TOKENS,
        eos_token_id=list(eos) or None,
        pad_token_id=eos[0] if eos else 0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    prompt = torch.tensor([ids])
    # Some models carry sampling and penalties as defaults; greedy is without them.
    defaults, model.generation_config = model.generation_config, greedy
    try:
        output = model.generate(prompt, attention_mask=torch.ones_like(prompt))
    finally:
        model.generation_config = defaults
    answer = output.sequences[0, len(ids) :].tolist()
    top = torch.stack([step[0].topk(2).values for step in output.logits])
    ended = answer[-1] in eos
    return GreedyAnswer(
        prompt=text,
        prompt_ids=ids,
        ids=answer[:-1] if ended else answer,
        margins=(top[:, 0] - top[:, 1]).tolist(),
        ended=ended,
    )
