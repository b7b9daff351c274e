"""Asks transformers for what a decoder's export has to reproduce: ids, chats, greedy answers.

The only part of the gates that needs torch. It runs before the export, on the model as it was
loaded, and its result is plain data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jinja2

from model_export.decoder.generation_config import stop_token_ids
from model_export.reporting import ExportError
from model_export.verify.corpus import corpus, evaluation_text
from model_export.verify.exchange import (
    DecoderReference,
    EncodedText,
    GreedyAnswer,
    RefusedChat,
    RenderedChat,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from model_export.fetch.load import LoadedModel

ANSWER_TOKENS = 20
LEAST_PROMPTS = 4
"""Prompts of the corpus that must fit into the context, or gate 2 would prove nothing."""
LONG_PROMPT, LONGEST_PROMPT = 512, 1500
"""Tokens of the one long prompt: enough for a window to slide, up to what 2 cores read in 10 s."""


def make_reference(loaded: LoadedModel, context_length: int) -> DecoderReference:
    """Encodes and answers the shipped corpus.

    Takes about 20 s for a model of 135M weights on 2 cores, nearly all of it answers.
    """
    texts = [*corpus().texts, *corpus().completions, evaluation_text()]
    chats, refusals = _chats(loaded)
    return DecoderReference(
        texts=[_encode(loaded.tokenizer, text) for text in texts],
        chats=chats,
        refusals=refusals,
        answers=_answers(loaded, chats, context_length),
        answer_tokens=ANSWER_TOKENS,
    )


def _encode(tokenizer: PreTrainedTokenizerFast, text: str) -> EncodedText:
    return EncodedText(
        text=text,
        ids=tokenizer.encode(text, add_special_tokens=False),
        ids_with_special_tokens=tokenizer.encode(text, add_special_tokens=True),
    )


def _chats(loaded: LoadedModel) -> tuple[list[RenderedChat], list[RefusedChat]]:
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


def _answers(
    loaded: LoadedModel, chats: list[RenderedChat], context_length: int
) -> list[GreedyAnswer]:
    """Answers the prompts that leave room for a whole answer: in a real context, all."""
    longest = context_length - ANSWER_TOKENS - 1
    prompts = [(chat.rendered, chat.ids) for chat in chats]
    prompts += [
        (text, loaded.tokenizer.encode(text, add_special_tokens=True))
        for text in corpus().completions
    ]
    fitting = [prompt for prompt in prompts if len(prompt[1]) <= longest]
    if len(fitting) < LEAST_PROMPTS:
        raise ExportError(
            f"Only {len(fitting)} prompts of the corpus fit into a context of {context_length} "
            f"tokens, too few to verify anything: raise [export] context_length."
        )
    fitting.append(_long_prompt(loaded, longest))
    eos = stop_token_ids(loaded)
    return [_answer(loaded, text, ids, eos) for text, ids in fitting]


def _long_prompt(loaded: LoadedModel, longest: int) -> tuple[str, list[int]]:
    """Returns the beginning of the evaluation text, longer than a sliding window if possible."""
    window = getattr(loaded.model.config.get_text_config(), "sliding_window", None) or 0
    length = min(longest, max(LONG_PROMPT, window + 64), LONGEST_PROMPT)
    ids = loaded.tokenizer.encode(evaluation_text(), add_special_tokens=True)[:length]
    return loaded.tokenizer.decode(ids), ids


def _answer(loaded: LoadedModel, text: str, ids: list[int], eos: tuple[int, ...]) -> GreedyAnswer:
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
    model: Any = loaded.model  # torch types a module's attributes as tensors
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
