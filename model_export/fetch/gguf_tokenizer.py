"""Corrects what transformers gets wrong when it rebuilds a tokenizer from a GGUF file.

1. The end-of-sequence token: GGUFLlamaConverter reads it from `bos_token_id`
   (transformers/integrations/ggml.py), so SmolLM2 would end at `<|im_start|>`.
2. The pre-tokenizer: the file names it in `tokenizer.ggml.pre`, transformers does not read
   that and splits by the architecture, mostly like GPT-2. SmolLM cuts every digit off its
   neighbours first, so the indentation before a number is one token, not two. The rules are
   llama.cpp's (src/llama-vocab.cpp) and those of the models' own tokenizer.json.
3. The token before a text: LlamaTokenizerFast always puts one there, whatever
   `tokenizer.ggml.add_bos_token` says. A file that says nothing means llama.cpp's default.
4. Gemma's pieces: gguf_pieces.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_export.errors import ExportError

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerFast

# Meta-Llama-3's and Qwen2's tokenizer.json: digits in groups of up to three, or one by one.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {"llama-bpe": _WORDS % r"\p{N}{1,3}", "qwen2": _WORDS % r"\p{N}"}
# `tokenizer.ggml.pre` values that transformers' own conversion already serves.
_SERVED = frozenset({"default", "gpt-2"})
_ROLES = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}


def correct(tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """Changes `tokenizer` in place to what the GGUF file at `path` says. Raises ExportError."""
    from gguf import GGUFReader

    reader = GGUFReader(path)
    for role, name in _ROLES.items():
        token_id = _field(reader, f"tokenizer.ggml.{role}_token_id")
        if token_id is not None:
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(int(token_id)))
    model = _field(reader, "tokenizer.ggml.model")
    if model == "llama" and _field(reader, "general.architecture").startswith("gemma"):
        _correct_pieces(tokenizer, reader)
    pre_tokenizer = _field(reader, "tokenizer.ggml.pre") or "default"
    add_bos = _field(reader, "tokenizer.ggml.add_bos_token")
    if add_bos is None:
        add_bos = model == "llama" or pre_tokenizer == "llama-bpe"
    _correct_beginning(tokenizer, bool(add_bos))
    # Byte-pair vocabularies ("gpt2") have a pre-tokenizer, SentencePiece ones ("llama") none.
    if model == "gpt2":
        _correct_pre_tokenizer(tokenizer, pre_tokenizer)


def _correct_pieces(tokenizer: PreTrainedTokenizerFast, reader: GGUFReader) -> None:
    from model_export.fetch.gguf_pieces import Pieces, join_pieces

    pieces = Pieces(
        tokens=_field(reader, "tokenizer.ggml.tokens"),
        kinds=_field(reader, "tokenizer.ggml.token_type"),
        scores=_field(reader, "tokenizer.ggml.scores"),
    )
    join_pieces(tokenizer.backend_tokenizer, pieces, tokenizer.unk_token)


def _correct_beginning(tokenizer: PreTrainedTokenizerFast, add_bos: bool) -> None:
    from tokenizers.processors import TemplateProcessing

    bos, bos_id = tokenizer.bos_token, tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = (
        TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, bos_id)])
        if add_bos and bos is not None
        else TemplateProcessing(single="$A", special_tokens=[])
    )


def _correct_pre_tokenizer(tokenizer: PreTrainedTokenizerFast, name: str) -> None:
    if name in _SERVED:
        return
    if name == "smollm":
        pre_tokenizer = _digits_one_by_one()
    elif name in _SPLITS:
        pre_tokenizer = _split(_SPLITS[name])
        # Llama 3 takes a whole word that is in its vocabulary, however its merges would cut it.
        tokenizer.backend_tokenizer.model.ignore_merges = name == "llama-bpe"
    else:
        raise ExportError(
            f"The GGUF file's pre-tokenizer is {name!r}, which transformers does not rebuild: "
            f"prompts would be cut into other tokens than the model learnt. Export from the "
            f"original repository or folder, which has a tokenizer.json."
        )
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizer


def _digits_one_by_one() -> PreTokenizer:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )


def _split(pattern: str) -> PreTokenizer:
    from tokenizers import Regex, pre_tokenizers

    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
        ]
    )


def _field(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    return None if field is None else field.contents()
