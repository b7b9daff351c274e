"""Small real tokenizers, one for each way in which a token's text depends on its neighbours."""

from __future__ import annotations

from collections.abc import Callable

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's 12:30, isn't it?",
    "def main():\n    return {'key': [1, 2.5, None]}  # a comment",
    "Größe, naïve, 東京タワー, привет, שלום, 👩‍👩‍👧 🎉🎉 — “quoted”",
] * 4
END = "<|end|>"


def byte_level() -> tokenizers.Tokenizer:
    """GPT-2, Llama 3, Qwen, SmolLM: tokens are bytes, and a character may span several."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _train(tokenizer, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    return tokenizer


def byte_fallback() -> tokenizers.Tokenizer:
    """Llama 2, Mistral, Gemma, Phi-3: characters, and <0x..> tokens for those that are missing."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    words = ["<unk>", *bytes_, *"▁abcdefghijklmnopqrstuvwxyz.,!é", "▁a", "th", "▁th", "▁the", "er"]
    vocabulary = {word: number for number, word in enumerate(words)}
    merges = [("▁", "a"), ("t", "h"), ("▁", "th"), ("e", "r")]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    return tokenizer


def metaspace() -> tokenizers.Tokenizer:
    """Unigram models: the first token of a text loses its space."""
    tokenizer = tokenizers.Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    _train(tokenizer, trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>"))
    return tokenizer


def word_piece() -> tokenizers.Tokenizer:
    """BERT: spaces between tokens, save before ##pieces and punctuation."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    _train(tokenizer, trainers.WordPieceTrainer(vocab_size=250, special_tokens=["[UNK]"]))
    return tokenizer


def word_suffix() -> tokenizers.Tokenizer:
    """The first GPT and CLIP: a suffix marks the end of a word and becomes a space."""
    tokenizer = tokenizers.Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    _train(tokenizer, trainers.BpeTrainer(vocab_size=250, end_of_word_suffix="</w>"))
    return tokenizer


KINDS: dict[str, Callable[[], tokenizers.Tokenizer]] = {
    kind.__name__: kind for kind in (byte_level, byte_fallback, metaspace, word_piece, word_suffix)
}


def _train(tokenizer: tokenizers.Tokenizer, trainer: trainers.Trainer) -> None:
    trainer.show_progress = False
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
