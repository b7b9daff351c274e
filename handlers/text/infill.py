"""Prompts that have a model fill in the middle of a text, by the marks that it was trained with.

The marks are found among the tokenizer's added tokens, as llama.cpp does it (src/llama-vocab.cpp).
"""

from __future__ import annotations

from itertools import accumulate, chain, pairwise
from typing import TYPE_CHECKING

import msgspec

from handlers.text.control_tokens import ControlTokens, PromptText

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from handlers.text.tokenizer import Tokenizer


class InfillMarks(msgspec.Struct, frozen=True):
    """The marks before the three parts of a text."""

    prefix: str
    suffix: str
    middle: str
    """What the answer follows; empty where it follows the prefix."""
    suffix_first: bool = False


# Each with where it is described.
KNOWN_MARKS = (
    # Qwen2.5-Coder, https://github.com/QwenLM/Qwen3-Coder/blob/main/examples/Qwen2.5-Coder.md;
    # CodeGemma, https://ai.google.dev/gemma/docs/codegemma; Granite 4.
    InfillMarks("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"),
    # StarCoder 1 and 2, https://huggingface.co/bigcode/starcoder#fill-in-the-middle; Granite 3.
    InfillMarks("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    # SantaCoder, https://huggingface.co/bigcode/santacoder#fill-in-the-middle
    InfillMarks("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    # DeepSeek-Coder, https://github.com/deepseek-ai/DeepSeek-Coder#2-code-insertion
    InfillMarks("<\uff5cfim▁begin\uff5c>", "<\uff5cfim▁hole\uff5c>", "<\uff5cfim▁end\uff5c>"),
    # CodeLlama, https://huggingface.co/docs/transformers/model_doc/code_llama
    InfillMarks("▁<PRE>", "▁<SUF>", "▁<MID>"),
    # Codestral, fim.py of https://github.com/mistralai/mistral-common
    InfillMarks("[PREFIX]", "[SUFFIX]", "", suffix_first=True),
    # GLM 4.5 and Falcon-H1-Tiny-Coder, as llama.cpp has them.
    InfillMarks("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"),
    InfillMarks("<|prefix|>", "<|suffix|>", "<|middle|>"),
)
REPOSITORY_MARKS = ("<|repo_name|>", "<repo_name>", "<|reponame|>", "<reponame>")
FILE_MARKS = ("<|file_sep|>", "<file_sep>", "<|file_separator|>", "<|filename|>", "<filename>")
END_MARKS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|fim_pad|>",
    "<fim_pad>",
    "<fim-pad>",
    "▁<EOT>",
    "<EOT>",
    "<|cursor|>",
)
"""Tokens that end the middle, beside all other marks: another file would begin after it."""

# llama-server's, where a request tells no name.
PROJECT = "myproject"
CURRENT_FILE = "filename"
SNIPPET = "\n\n--- snippet ---\n\n"


class InfillFormat(msgspec.Struct, frozen=True):
    """How one model's prompts are written that ask for the middle of a text."""

    marks: InfillMarks
    repository: str | None
    """The mark before the name of a repository."""
    file: str | None
    """The mark before a file's name."""
    ends: frozenset[int]
    """The ids that end an answer."""
    control_tokens: ControlTokens

    @classmethod
    def of(cls, tokenizer: Tokenizer, vocab_size: int) -> InfillFormat | None:
        """Returns the format of a tokenizer, None for one that has no marks for it.

        `vocab_size`: the logits of the model, which may be fewer than the tokenizer's ids.
        """
        ids = {name: i for name, i in tokenizer.added_ids.items() if i < vocab_size}
        for marks in KNOWN_MARKS:
            own = {marks.prefix, marks.suffix, marks.middle} - {""}
            if own <= ids.keys():
                break
        else:
            return None
        ends = {*own, *REPOSITORY_MARKS, *FILE_MARKS, *END_MARKS} & ids.keys()
        return cls(
            marks,
            next((mark for mark in REPOSITORY_MARKS if mark in ids), None),
            next((mark for mark in FILE_MARKS if mark in ids), None),
            frozenset(ids[mark] for mark in ends),
            ControlTokens(tokenizer.added_tokens, " ".join(ends)),
        )

    def prompt(self, prefix: str, suffix: str, files: Sequence[tuple[str, str]] = ()) -> PromptText:
        """Writes the prompt. None of its texts becomes a control token.

        `files`: names and texts of other files, which stand before it.
        """
        before, after = (self.marks.prefix, prefix), (self.marks.suffix, suffix)
        parts = (after, before) if self.marks.suffix_first else (before, after)
        # The marks and the texts take turns.
        pieces = [*self._files(files), *chain.from_iterable(parts), self.marks.middle]
        places = [0, *accumulate(map(len, pieces))]
        users = [*pairwise(places)][1::2]
        text = "".join(pieces)
        return PromptText(text, self.control_tokens.breaks(text, users))

    def _files(self, files: Sequence[tuple[str, str]]) -> Iterable[str]:
        """Yields marks and texts in turn: each file, and where it can be told the current one."""
        if files and self.file and self.repository:
            yield from (self.repository, f"{PROJECT}\n")
        for name, text in files:
            yield from (self.file, f"{name}\n{text}") if self.file else (SNIPPET, text)
        if files and self.file:
            yield from (self.file, f"{CURRENT_FILE}\n")
