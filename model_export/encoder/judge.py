"""Finds the words and the prompt of a language model that ranks by saying yes or no.

The score is the logit of yes at the last token, less that of no, through a sigmoid: the share of
yes in a softmax over the two. So judge Qwen3-Reranker (https://arxiv.org/abs/2506.05176) and
others. The words and the prompt are sentence-transformers' (its module LogitScore, and a chat
template with the roles query and document) where the model's files have them, otherwise the
recipe's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from handlers.artifact.manifest import PairPrompt
from handlers.text.pair_prompt import filled
from model_export.reporting import ExportError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from model_export.encoder.sentence_transformers import LogitScore
    from model_export.recipe import JudgeTable

_INSTRUCTION = "{instruction}"
_PLACEHOLDERS = {"instruction": _INSTRUCTION, "query": "{query}", "document": "{document}"}
_PROBE = {"instruction": " I\n", "query": "\n{q} ", "document": "\t<d> \n"}
"""Texts with white space at both ends: a chat template that drops some is no plain prompt."""


@dataclass(frozen=True, slots=True)
class Judge:
    """The ids of the two words, and the prompt."""

    yes: int
    no: int | None
    """None: the score is the logit of yes alone."""
    prompt: PairPrompt


def judge_of_recipe(table: JudgeTable, tokenizer: PreTrainedTokenizerFast) -> Judge:
    """Returns the judge that a recipe describes. Raises ExportError."""
    return Judge(
        yes=_word_id(tokenizer, "yes", table.yes),
        no=None if table.no is None else _word_id(tokenizer, "no", table.no),
        prompt=PairPrompt(template=table.template, instruction=table.instruction),
    )


def _word_id(tokenizer: PreTrainedTokenizerFast, key: str, word: str) -> int:
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise ExportError(
            f"[export.judge] {key} is {word!r}, of which the tokenizer makes {len(ids)} tokens "
            f"({', '.join(tokenizer.convert_ids_to_tokens(ids))}): name a word that is one."
        )
    return int(ids[0])


def judge_of_files(score: LogitScore, tokenizer: PreTrainedTokenizerFast) -> Judge:
    """Returns the judge that sentence-transformers' files describe. Raises ExportError."""
    prompt = _prompt(score, tokenizer)
    texts = dict(_PROBE) if _INSTRUCTION in prompt.template else {**_PROBE, "instruction": None}
    counts = [prompt.template.count(_PLACEHOLDERS[name]) for name in ("query", "document")]
    if counts != [1, 1] or filled(prompt.template, _PROBE) != _render(score, tokenizer, texts):
        raise ExportError(
            "The model's chat template does not put a query and a document, as they are and once "
            "each, into one prompt (messages of the roles query and document), as its LogitScore "
            "wants."
        )
    return Judge(score.yes, score.no, prompt)


def _prompt(score: LogitScore, tokenizer: PreTrainedTokenizerFast) -> PairPrompt:
    """Reads the prompt off the chat template, with placeholders for the texts."""
    told = _render(score, tokenizer, _PLACEHOLDERS)
    default = score.instruction
    if default is None:
        untold = _render(score, tokenizer, {**_PLACEHOLDERS, "instruction": None})
        default = _between(told, untold)
        if default is None:
            return PairPrompt(untold)
    return PairPrompt(told, default if _INSTRUCTION in told else None)


def _between(told: str, untold: str) -> str | None:
    """Returns the instruction that the template itself has where nobody names one."""
    head, found, tail = told.partition(_INSTRUCTION)
    if not found or not untold.startswith(head) or not untold.endswith(tail):
        return None
    return untold[len(head) : len(untold) - len(tail)]


def _render(score: LogitScore, tokenizer: PreTrainedTokenizerFast, texts: dict[str, Any]) -> str:
    """Renders a pair as sentence-transformers does. `texts` may have the instruction None."""
    roles = {"system": texts["instruction"], "query": texts["query"], "document": texts["document"]}
    messages = [{"role": role, "content": text} for role, text in roles.items() if text is not None]
    try:
        rendered = tokenizer.apply_chat_template(messages, tokenize=False, **score.rendering)
    # jinja2's errors, and transformers' of a tokenizer without a template.
    except Exception as error:
        raise ExportError(f"The chat template renders no query and document: {error}") from error
    return str(rendered)
