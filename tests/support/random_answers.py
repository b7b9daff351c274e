"""A model that knows nothing: it draws each id at random from those that a grammar allows_id."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from handlers.engine.params import Constraint
from handlers.grammar.constraint import GrammarConstraint
from handlers.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Answer:
    text: str
    ids: list[int]
    whole: bool
    """False for an answer that was cut by its length."""


def allowed_ids(constraint: Constraint) -> NDArray[np.intp]:
    """The ids that may come next, where not any may."""
    mask = constraint.allowed()
    assert mask is not None
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little"))


def allows_id(constraint: Constraint, token_id: int) -> bool:
    mask = constraint.allowed()
    return mask is None or bool(mask[token_id // 32] >> token_id % 32 & 1)


def is_whole(constraint: GrammarConstraint, text: str = "") -> bool:
    """Returns whether a text, from this place on, is a whole answer."""
    matcher = constraint._matcher.deep_copy()
    ids = constraint._vocabulary.tokenize_str(text)
    return bool(matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting())


def writes(constraint: GrammarConstraint, tokenizer: Tokenizer, text: str) -> bool:
    """Returns whether a whole answer may be this text."""
    constraint = constraint.copy()
    for token_id in tokenizer.encode(text):
        if not allows_id(constraint, token_id):
            return False
        constraint.accept(token_id)
    return is_whole(constraint)


def random_answer(
    constraint: Constraint,
    tokenizer: Tokenizer,
    seed: int = 0,
    max_tokens: int = 400,
    eos_token_id: int = 2,
    ends: bool = True,
) -> Answer:
    """Goes as the engine does: forced ids first, then one that is allowed.

    Where it may end it does, by the toss of a coin; never where `ends` is false.
    """
    generator = np.random.default_rng(seed)
    ids: list[int] = []
    while len(ids) < max_tokens and not constraint.complete:
        following = constraint.forced()
        if not following:
            allowed = allowed_ids(constraint)
            may_end = eos_token_id in allowed
            if may_end and (len(allowed) == 1 or (ends and generator.random() < 0.5)):
                return Answer(tokenizer.decode(ids), ids, whole=True)
            following = [int(generator.choice(allowed[allowed != eos_token_id]))]
        for token_id in following:
            constraint.accept(token_id)
        ids += following
    return Answer(tokenizer.decode(ids), ids, whole=constraint.complete)
