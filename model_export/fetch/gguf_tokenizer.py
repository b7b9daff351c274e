"""Corrects what transformers gets wrong when it rebuilds a tokenizer from a GGUF file.

1. The end-of-sequence token: GGUFLlamaConverter reads it from `bos_token_id`
   (transformers/integrations/ggml.py), so SmolLM2 would end at `<|im_start|>`.
2. The pre-tokenizer: the file names it in `tokenizer.ggml.pre`, transformers does not read
   that and splits by the architecture, mostly like GPT-2. SmolLM cuts every digit off its
   neighbours first, so the indentation before a number is one token, not two. The rules are
   llama.cpp's (src/llama-vocab.cpp) and those of the models' own tokenizer.json.
3. The token before a text: LlamaTokenizerFast always puts one there, and ignores
   `tokenizer.ggml.add_bos_token`. A file that says nothing means llama.cpp's default.
4. Gemma's pieces: the scores in the file are ranks. Of all neighbours in a text those that make the
   best piece are joined first (llama.cpp's src/llama-vocab.cpp, `llm_tokenizer_spm`). transformers
   4.57 reads them as the logarithms of a Unigram model's probabilities (GGUFGemmaConverter in
   transformers/integrations/ggml.py), which cuts " capital" into " c", "ap", "it" and "al". Neither
   it nor transformers 5 knows the tokens that are never made of pieces, such as two spaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_export.reporting import ExportError

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedTokenizerFast


# Meta-Llama-3's and Qwen2's tokenizer.json: digits in groups of up to three, or one by one.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {"llama-bpe": _WORDS % r"\p{N}{1,3}", "qwen2": _WORDS % r"\p{N}"}
# `tokenizer.ggml.pre` values that transformers' own conversion rebuilds correctly.
_CORRECT = frozenset({"default", "gpt-2"})
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
    pieces = SentencePieces(
        tokens=_field(reader, "tokenizer.ggml.tokens"),
        types=_field(reader, "tokenizer.ggml.token_type"),
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
    if name in _CORRECT:
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


@dataclass(frozen=True, slots=True)
class SentencePieces:
    """The lists of a GGUF file's vocabulary: an entry for each id."""

    tokens: Sequence[str]
    types: Sequence[int]
    """gguf.TokenType."""
    scores: Sequence[float]

    def of_type(self, wanted: int) -> Iterator[tuple[str, float]]:
        """Yields the tokens of one type, and their scores."""
        for token, kind, score in zip(self.tokens, self.types, self.scores, strict=True):
            if kind == wanted:
                yield token, score


def join_pieces(tokenizer: Tokenizer, pieces: SentencePieces, unknown: str | None) -> None:
    """Gives `tokenizer` the pieces as byte pairs, and the tokens that are no pieces."""
    from gguf import TokenType
    from tokenizers import AddedToken
    from tokenizers.models import BPE

    tokenizer.model = BPE(
        {token: index for index, token in enumerate(pieces.tokens)},
        _merges(dict(pieces.of_type(TokenType.NORMAL))),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    for kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
        special = kind == TokenType.CONTROL
        names = [token for token, _ in pieces.of_type(kind)]
        tokenizer.add_tokens([AddedToken(n, normalized=False, special=special) for n in names])


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """Returns merges, the best piece first, by each pair of pieces that makes it."""
    return [
        (piece[:cut], piece[cut:])
        for piece in sorted(scores, key=lambda piece: -scores[piece])
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
