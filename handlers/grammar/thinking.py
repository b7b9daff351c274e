"""Begins an answer's grammar after the model's thoughts, and ends thoughts that use up a budget.

    may begin thoughts ──the mark of the beginning──> thinks ──the mark of the end──> answers
            └───────────── any other text ────────────────────────────────────────────^

Thoughts are free, but for ids that end an answer where a grammar is still to be followed. Marks are
found by the bytes of the ids: in most vocabularies each is one token, in others a few, of which
the last may have the line break after the mark in it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from handlers.errors import EngineFault
from handlers.grammar.thinking_marks import ThinkingMarks

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from handlers.artifact.dialect import Thinking
    from handlers.grammar.compiler import GrammarCompiler
    from handlers.grammar.constraint import GrammarConstraint


def after_thoughts(
    grammar: GrammarConstraint | None,
    thinking: Thinking | None,
    thinks: bool,
    compiler: GrammarCompiler,
    budget: int | None = None,
) -> GrammarConstraint | ThinkingConstraint | None:
    """Returns the constraint of an answer with thoughts, which follows `grammar` after them.

    `thinking`: None where no thoughts are expected. `thinks`: whether the prompt ends within
    thoughts; otherwise the model may begin them. `budget`: tokens of thoughts, None for any number.

    None is returned where nothing is constrained. The first call with a grammar reads the
    vocabulary, for 50 ms with 49,000 ids.
    """
    if thinking is None or (grammar is None and budget is None):
        return grammar
    if not (thinks or thinking.begin.strip()):
        return grammar
    marks = _marks(compiler, thinking.begin, thinking.end)
    if grammar is not None:
        marks.mask_of_thoughts(b"")
    return ThinkingConstraint(marks, grammar, thinks, budget)


@lru_cache(maxsize=4)
def _marks(compiler: GrammarCompiler, begin: str, end: str) -> ThinkingMarks:
    return ThinkingMarks(
        compiler.tokenizer, compiler.vocab_size, compiler.eos_token_ids, begin, end
    )


class ThinkingConstraint:
    """Says which ids may come next in thoughts, and in the answer after them.

    Implements the engine's Constraint.
    """

    def __init__(
        self,
        marks: ThinkingMarks,
        grammar: GrammarConstraint | None,
        thinks: bool,
        budget: int | None,
    ) -> None:
        """`grammar`: None for an answer of any text. The others are those of `after_thoughts`."""
        self._marks = marks
        self._grammar = grammar
        """Of the answer; at its start until the answer begins."""
        self._thinks = thinks
        self._budget = budget
        self._phase: Literal["before", "thoughts", "answer"] = "before"
        self._begun = b""
        """Before thoughts: what is written of the mark of the beginning."""
        self._answer: GrammarConstraint | None = None
        """Before thoughts: the grammar, as far as an answer without thoughts has come."""
        self._tail = b""
        """The latest bytes of the thoughts, in which the mark of the end may have begun."""
        self._thoughts = 0
        """Tokens of thoughts."""
        self._due: list[int] = []
        """Ids that have to come next."""
        if thinks:
            self._think()
        elif grammar is not None:
            self._answer = grammar.copy()

    def copy(self) -> ThinkingConstraint:
        """Returns another constraint of an answer that has not begun, one for each of `n`."""
        grammar = None if self._grammar is None else self._grammar.copy()
        return ThinkingConstraint(self._marks, grammar, self._thinks, self._budget)

    @property
    def ends_answer(self) -> bool:
        """Returns whether it says itself when the answer ends."""
        return self._grammar is not None

    @property
    def complete(self) -> bool:
        """Returns whether nothing but the end may follow."""
        return self._phase == "answer" and not self._due and _is_complete(self._grammar)

    def allowed(self) -> NDArray[np.uint32] | None:
        """Returns a bit mask [ceil(vocab / 32)], None where any id may come.

        Raises GrammarTooComplex where the grammar outgrows a limit in mid-answer.
        """
        if self._due:
            return self._marks.mask(self._due[:1])
        if self._grammar is None:
            return None
        if self._phase == "thoughts":
            return self._marks.mask_of_thoughts(self._tail)
        if self._phase == "answer":
            return self._grammar.allowed()
        mask = self._marks.mask(self._marks.opening(self._begun))
        return mask if self._answer is None else mask | self._answer.allowed()

    def accept(self, token_id: int) -> None:
        """Advances by one id.

        Raises GrammarTooComplex, and EngineFault for an id that is not allowed.
        """
        if self._due:
            if self._due.pop(0) != token_id:
                raise _not_allowed(token_id)
        elif self._phase == "before":
            self._accept_before(token_id)
        elif self._phase == "thoughts":
            self._accept_thought(token_id)
        elif self._grammar is not None:
            self._grammar.accept(token_id)

    def valid_prefix(self, draft: Sequence[int]) -> int:
        """Returns how many of these ids, from the first on, may come next in turn.

        Thoughts are taken not to end within them.
        """
        if self._due:
            return 0
        if self._grammar is None or self._phase == "thoughts":
            return len(draft)
        grammar = self._grammar if self._phase == "answer" else self._answer
        return 0 if grammar is None else grammar.valid_prefix(draft)

    def forced(self) -> list[int]:
        """Returns the ids that must follow: the end of thoughts, then what the grammar forces."""
        if self._phase != "answer" or self._grammar is None:
            return [*self._due]
        return [*self._due, *self._grammar.forced()]

    def _accept_before(self, token_id: int) -> None:
        marks = self._marks
        self._begun = (self._begun + marks.token_bytes[token_id]).lstrip()
        if self._begun.startswith(marks.begin):
            self._tail = self._begun.removeprefix(marks.begin)
            self._think(after_begin=not self._tail)
            return
        if self._answer is not None:
            if _allows(self._answer.allowed(), token_id):
                self._answer.accept(token_id)
            else:
                self._answer = None
        if not marks.begin.startswith(self._begun) or _is_complete(self._answer):
            if self._grammar is not None and self._answer is None:
                raise _not_allowed(token_id)
            self._grammar = self._answer
            self._phase = "answer"

    def _think(self, after_begin: bool = False) -> None:
        """Begins thoughts. `after_begin`: right after the mark of their beginning."""
        self._phase = "thoughts"
        self._answer = None
        if self._budget == 0:
            self._close(after_begin)

    def _accept_thought(self, token_id: int) -> None:
        end = self._marks.end
        text = self._tail + self._marks.token_bytes[token_id]
        self._thoughts += 1
        self._tail = text[-max(3, len(end) - 1) :]
        if end in text:
            self._phase = "answer"
            self._space(text.partition(end)[2])
        elif self._budget is not None and self._thoughts >= self._budget and not _is_cut(text):
            self._close()

    def _close(self, after_begin: bool = False) -> None:
        """Ends the thoughts."""
        self._phase = "answer"
        self._due = self._marks.closing(after_begin)

    def _space(self, written: bytes) -> None:
        """Has the template's white space come before an answer of a grammar.

        `written`: the white space that the last token has after the mark of the end.
        """
        space = self._marks.space_after_end
        if self._grammar is not None and space.encode().startswith(written):
            self._due = self._marks.encode(space[len(written) :])


def _is_complete(grammar: GrammarConstraint | None) -> bool:
    return grammar is not None and grammar.complete


def _allows(mask: NDArray[np.uint32], token_id: int) -> bool:
    return bool(mask[token_id // 32] >> token_id % 32 & 1)


def _is_cut(text: bytes) -> bool:
    """Returns whether the text ends within a character of UTF-8, of at most 4 bytes."""
    for size, byte in enumerate(reversed(text[-3:]), start=1):
        if byte >= 0b1100_0000:  # the first of 2, 3 or 4
            return size < (2 if byte < 0b1110_0000 else 3 if byte < 0b1111_0000 else 4)
        if byte < 0b1000_0000:
            return False
    return False


def _not_allowed(token_id: int) -> EngineFault:
    return EngineFault(f"The grammar does not allow the id {token_id}.")
