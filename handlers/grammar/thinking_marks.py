"""The marks of a model's thoughts as bytes and ids, and the ids that may come while it thinks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.grammar.vocabulary import SEPARATOR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from handlers.text.tokenizer import Tokenizer


class ThinkingMarks:
    """The marks of one model's thoughts. All answers of a process share them."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        vocab_size: int,
        eos_token_ids: Sequence[int],
        begin: str,
        end: str,
    ) -> None:
        """`begin` and `end` are those of a Thinking, the others as for GrammarCompiler."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = eos_token_ids
        self.token_bytes = tokenizer.token_bytes
        self.begin = begin.strip().encode()
        self.end = end.strip().encode()
        self.space_after_end = end[len(end.rstrip()) :]
        self._space_after_begin = begin[len(begin.rstrip()) :]
        self._closing = end
        self._masks: dict[bytes, NDArray[np.uint32]] = {}
        self._candidates: list[tuple[int, bytes]] | None = None

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text that stands within a text, such as a line break."""
        if not text:
            return []
        encode = self._tokenizer.encode
        return encode(SEPARATOR + text)[len(encode(SEPARATOR)) :]

    def closing(self, after_begin: bool) -> list[int]:
        """Returns the ids that end thoughts. `after_begin`: right after the mark of the beginning.

        There they have the white space of both, as a template writes thoughts that are empty.
        """
        return self.encode((self._space_after_begin if after_begin else "") + self._closing)

    def opening(self, written: bytes) -> list[int]:
        """Returns the id that goes on with the mark of the beginning, of which some is written."""
        rest = self.begin[len(written) :]
        ids = self.encode(rest.decode(errors="ignore"))[:1]
        return [token_id for token_id in ids if rest.startswith(self.token_bytes[token_id])]

    def mask(self, ids: Iterable[int]) -> NDArray[np.uint32]:
        """Returns bits that allow these ids alone."""
        import numpy as np

        bits = np.zeros(-(-self._vocab_size // 32), np.uint32)
        for token_id in ids:
            bits[token_id // 32] |= np.uint32(1 << token_id % 32)
        return bits

    def mask_of_thoughts(self, tail: bytes) -> NDArray[np.uint32]:
        """Returns bits that allow all ids but those that end an answer, or begin one by themselves.

        The latter have the last bytes of the mark of the end and text after it, which the answer's
        grammar could not refuse any more. `tail`: the latest bytes of the thoughts.
        """
        sizes = [size for size in range(len(self.end)) if tail.endswith(self.end[:size])]
        written = self.end[: sizes[-1]]
        if written not in self._masks:
            rests = [self.end[size:] for size in sizes]
            beyond = (i for i, token in self._ending() if self._has_text_after(token, rests))
            self._masks[written] = ~self.mask([*self._eos_token_ids, *beyond])
        return self._masks[written]

    def _has_text_after(self, token: bytes, rests: Iterable[bytes]) -> bool:
        """Returns whether a token ends thoughts, of which one of `rests` is missing, and goes on.

        White space that it goes on with is no text.
        """
        texts = (token[len(rest) :] for rest in rests if token.startswith(rest))
        return bool(token.partition(self.end)[2].strip()) or any(text.strip() for text in texts)

    def _ending(self) -> list[tuple[int, bytes]]:
        """Returns the tokens, with their ids, that have the mark's last byte before another one."""
        if self._candidates is None:
            self._candidates = [*self._read_vocabulary()]
        return self._candidates

    def _read_vocabulary(self) -> Iterator[tuple[int, bytes]]:
        last = self.end[-1:]
        for token_id in range(self._vocab_size):
            token = self.token_bytes[token_id]
            if last in token[:-1]:
                yield token_id, token
