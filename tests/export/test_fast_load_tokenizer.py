"""The artefact's tokenizer.json is quick to read, and says what the model's own says."""

from __future__ import annotations

import json

import pytest
import tokenizers
from tokenizers import models

from model_export.package import fast_load_json
from tests.support.tokenizer_kinds import KINDS, byte_level


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_tokenizer_is_read_back_as_itself(kind: str) -> None:
    tokenizer = KINDS[kind]()
    assert tokenizers.Tokenizer.from_str(fast_load_json(tokenizer)).to_str() == tokenizer.to_str()


def test_the_vocabulary_is_sorted_and_a_merge_is_one_string() -> None:
    model = json.loads(fast_load_json(byte_level()))["model"]
    assert list(model["vocab"]) == sorted(model["vocab"])
    assert model["merges"]
    assert all(isinstance(merge, str) for merge in model["merges"])


@pytest.mark.parametrize("first", ["a b", "#version:"])
def test_a_merge_that_no_string_can_hold_stays_a_pair(first: str) -> None:
    """A string is split at its space, and one that begins as a merges.txt does is passed over."""
    vocabulary = {first: 0, "c": 1, f"{first}c": 2}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, [(first, "c")]))
    assert fast_load_json(tokenizer) == tokenizer.to_str()
