"""A tiny random model as a folder, as `save_pretrained` writes it and a hub serves it."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from tests.support.tiny_models import tiny_model
from tests.support.tiny_tokenizers import CHATML, SPECIAL_TOKENS, tiny_tokenizer


def save_tiny_folder(
    directory: Path, family: str = "llama", chat_template: str | None = CHATML
) -> Path:
    """config.json, model.safetensors, the tokenizer's files, chat_template.jinja, LICENSE."""
    tiny_model(family).save_pretrained(directory, safe_serialization=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(),
        bos_token=SPECIAL_TOKENS[0],
        eos_token=SPECIAL_TOKENS[2],
        pad_token=SPECIAL_TOKENS[0],
        clean_up_tokenization_spaces=False,
        chat_template=chat_template,
    )
    tokenizer.save_pretrained(directory)
    (directory / "LICENSE").write_text("The tiny licence.\n", encoding="utf-8")
    return directory
