"""Gemma's tokenizer out of a GGUF file, as SentencePiece and llama.cpp join its pieces.

The scores in the file are ranks: of all neighbours in a text those that make the best piece are
joined first (llama.cpp's src/llama-vocab.cpp, `llm_tokenizer_spm`). transformers 4.57 reads them as
the logarithms of a Unigram model's probabilities (GGUFGemmaConverter in
transformers/integrations/ggml.py), which cuts " capital" into " c", "ap", "it" and "al". Neither
it nor transformers 5 knows the tokens that are never made of pieces, such as two spaces.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True, slots=True)
class Pieces:
    """The file's lists: an entry for each id."""

    tokens: Sequence[str]
    kinds: Sequence[int]
    """gguf.TokenType."""
    scores: Sequence[float]

    def of_kind(self, wanted: int) -> Iterator[tuple[str, float]]:
        """Tokens and their scores."""
        for token, kind, score in zip(self.tokens, self.kinds, self.scores, strict=True):
            if kind == wanted:
                yield token, score


def join_pieces(tokenizer: Tokenizer, pieces: Pieces, unknown: str | None) -> None:
    """Give `tokenizer` the pieces as byte pairs, and the tokens that are no pieces."""
    from gguf import TokenType
    from tokenizers import AddedToken
    from tokenizers.models import BPE

    tokenizer.model = BPE(
        {token: index for index, token in enumerate(pieces.tokens)},
        _merges(dict(pieces.of_kind(TokenType.NORMAL))),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=True,
    )
    for kind in (TokenType.CONTROL, TokenType.USER_DEFINED):
        special = kind == TokenType.CONTROL
        names = [token for token, _ in pieces.of_kind(kind)]
        tokenizer.add_tokens([AddedToken(n, normalized=False, special=special) for n in names])


def _merges(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    """The best piece first, by each pair of pieces that makes it."""
    return [
        (piece[:cut], piece[cut:])
        for piece in sorted(scores, key=lambda piece: -scores[piece])
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
