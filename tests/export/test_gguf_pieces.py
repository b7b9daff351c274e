"""Gemma's tokenizer out of a GGUF file cuts texts as SentencePiece does, whose rule is below."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf
import pytest
from tokenizers import Tokenizer, models, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from model_export.fetch.gguf_tokenizer import correct
from tests.support.tiny_tokenizers import TEXT

CONTROL = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
USER_DEFINED = ["\n", "\n\n", "  ", "<b>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def ranked_pieces() -> dict[str, float]:
    """Byte pairs of TEXT by their rank, then its characters."""
    tokenizer: Any = Tokenizer(models.BPE())
    text = TEXT.replace(" ", "▁")
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(vocab_size=400, show_progress=False))
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    pieces = sorted(vocabulary, key=lambda piece: (len(piece) == 1, vocabulary[piece]))
    return {piece: -float(rank) for rank, piece in enumerate(pieces) if "\n" not in piece}


PIECES = ranked_pieces()


def joined(text: str) -> list[str]:
    """The neighbours that make the best piece first, the leftmost of equals, until none do."""
    symbols = list(text)
    while pairs := [
        (PIECES[left + right], -index)
        for index, (left, right) in enumerate(pairwise(symbols))
        if left + right in PIECES
    ]:
        index = -max(pairs)[1]
        symbols[index : index + 2] = ["".join(symbols[index : index + 2])]
    return symbols


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerFast:
    path = write_gguf(tmp_path_factory.mktemp("gemma") / "gemma.gguf")
    loaded: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(
        path.parent, gguf_file=path.name
    )
    correct(loaded, path)
    return loaded


def write_gguf(path: Path) -> Path:
    """Gemma 3's head and vocabulary, without weights."""
    kinds = gguf.TokenType
    entries = [
        *((token, -1000.0, kinds.CONTROL) for token in CONTROL),
        *((token, -1000.0, kinds.USER_DEFINED) for token in USER_DEFINED),
        *((token, -1000.0, kinds.BYTE) for token in BYTES),
        *((piece, score, kinds.NORMAL) for piece, score in PIECES.items()),
    ]
    writer = gguf.GGUFWriter(path, "gemma3")
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token for token, _, _ in entries])
    writer.add_token_scores([score for _, score, _ in entries])
    writer.add_token_types([kind for _, _, kind in entries])
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(False)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("line", [line for line in TEXT.splitlines() if line and "  " not in line])
def test_pieces_are_joined_by_their_rank(tokenizer: PreTrainedTokenizerFast, line: str) -> None:
    assert tokenizer.tokenize(line) == joined(line.replace(" ", "▁"))


def test_what_has_no_piece_is_written_in_bytes(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer.encode("€", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(ids) == ["<0xE2>", "<0x82>", "<0xAC>"]
    assert tokenizer.decode(ids) == "€"


def test_tokens_that_are_no_pieces_are_found_before_any_is_joined(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    text = "<start_of_turn>the\n\n  the<b><end_of_turn>"
    the = joined("the")
    expected = ["<start_of_turn>", *the, "\n\n", "  ", *the, "<b>", "<end_of_turn>"]
    assert tokenizer.tokenize(text) == expected
    ids = tokenizer.encode(text)
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids) == f"<bos>{text}"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "the\n\n  the<b>"
