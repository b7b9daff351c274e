"""Real tokenizers with small vocabularies, trained on the spot: byte-level BPE, and WordPiece."""

from __future__ import annotations

from typing import Any

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

VOCABULARY = 512
SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
END_OF_TEXT, _, IM_END = range(3)

WORD_PIECES = 384
"""Ids of the WordPiece."""
_WORD_PIECE_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

CHATML = """{% for message in messages %}\
{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}\
{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


def tiny_tokenizer() -> Tokenizer:
    """A byte-level BPE of VOCABULARY ids, the special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if tokenizer.get_vocab_size() != VOCABULARY:
        raise ValueError(f"The text gives {tokenizer.get_vocab_size()} ids, not {VOCABULARY}.")
    return tokenizer


def ending_tokenizer() -> Tokenizer:
    """The same, which puts <|endoftext|> behind every text, as Qwen3-Embedding's does."""
    tokenizer: Any = tiny_tokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>",
        pair="$A $B <|endoftext|>",
        special_tokens=[("<|endoftext|>", END_OF_TEXT)],
    )
    return tokenizer


def word_piece() -> Tokenizer:
    """A tokenizer like BERT's: lower case, [CLS] first, [SEP] after each segment."""
    tokenizer: Any = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=WORD_PIECES, special_tokens=_WORD_PIECE_SPECIAL, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=special
    )
    return tokenizer


TEXT = """
The quick brown fox jumps over the lazy dog. Every token has its place in a vocabulary, and the
model reads one after another until it has something to say. A kettle sings when the water boils;
the capital of France is Paris, the largest planet is Jupiter, and seven times eight is fifty-six.
What is the weather like today? It rains in the morning, but the afternoon will be bright and warm.
Please write a short story about a lighthouse keeper who finds a letter inside a green bottle.
Once upon a time there was a keeper who lived alone above the northern sea. He wound the clock,
trimmed the wick and counted ships; nothing else happened for eleven years. Then the bottle came.
user system assistant: You are a helpful assistant. Answer briefly, and say so when you do not know.
def greet(name): return "Hello, " + name + "!"  # the simplest function that anybody ever writes
numbers = [1, 2, 3, 5, 8, 13, 21]; total = sum(number for number in numbers if number % 2 == 0)
"""
