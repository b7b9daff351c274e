"""What may follow: a grammar as the engine sees it, in ids.

Implemented by handlers/text/grammar.py, asked by the engine: which ids may come next, which
must. It belongs to one sequence and is called from the thread that turns the crank alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Constraint(Protocol):
    """A grammar, at the place in it that the ids accepted so far have led to.

    A method that raises GrammarTooComplex or EngineFault ends its sequence, and no other.
    """

    def allowed(self) -> NDArray[np.uint32]:
        """Bits [ceil(vocab / 32)]: bit i % 32 of word i // 32 says whether id i may come next.

        Ids that end an answer are among them where it may end.
        """

    def accept(self, token_id: int) -> None:
        """Goes on by one id, which has to be an allowed one."""

    def forced(self) -> list[int]:
        """Ids that must follow now, in order; often none. They are still to be accepted."""

    @property
    def complete(self) -> bool:
        """Whether nothing but the end may follow."""
