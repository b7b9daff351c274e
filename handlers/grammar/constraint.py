"""One answer's position in its grammar, as the engine asks for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.errors import EngineFault, GrammarTooComplex
from handlers.grammar.errors import raise_panic, reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    import llguidance
    import numpy as np
    from numpy.typing import NDArray


class GrammarConstraint:
    """Says which ids may come next. Implements the engine's Constraint with llguidance."""

    def __init__(
        self,
        matcher: llguidance.LLMatcher,
        vocabulary: llguidance.LLTokenizer,
    ) -> None:
        import numpy as np

        self._matcher = matcher
        self._vocabulary = vocabulary
        self._mask = np.zeros(-(-vocabulary.vocab_size // 32), np.uint32)

    def copy(self) -> GrammarConstraint:
        """Returns another constraint at the same position, one for each of a request's `n`."""
        return GrammarConstraint(self._matcher.deep_copy(), self._vocabulary)

    @property
    def ends_answer(self) -> bool:
        """Returns True: it allows ids that end an answer where it may end."""
        return True

    def allowed(self) -> NDArray[np.uint32]:
        """Returns a bit mask [ceil(vocab / 32)], in a buffer that the next call overwrites.

        Raises GrammarTooComplex where the grammar outgrows a limit in mid-answer.
        """
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        return self._mask

    def accept(self, token_id: int) -> None:
        """Advances by one id.

        Raises GrammarTooComplex, and EngineFault for an id that is not allowed.
        """
        if not self._matcher.try_consume_tokens([token_id]):
            self._check()
            raise EngineFault(f"The grammar does not allow the id {token_id}.")

    def valid_prefix(self, draft: Sequence[int]) -> int:
        """Returns how many of these ids, from the first on, the grammar allows in turn.

        llguidance counts the lexer's states and fuel that this takes as the answer's own. So a
        grammar at those limits may be too complex with drafts where it was not without.
        """
        return self._matcher.validate_tokens(list(draft))

    def forced(self) -> list[int]:
        """Returns the ids that must follow, as the tokenizer would cut the forced text.

        The last ids that later text could still change are held back, so an answer has the ids
        that the model would have learnt for its text.
        """
        ids = self._matcher.compute_ff_tokens()
        self._check()
        return ids

    @property
    def complete(self) -> bool:
        """Returns whether nothing but the end may follow."""
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise_panic(self._matcher.get_error())
            raise GrammarTooComplex(
                f"The grammar cannot be followed to the end of an answer: "
                f"{reason(self._matcher.get_error())}. Make it simpler."
            )
