"""Ids to text, one id at a time.

The pieces together are the text that decoding all ids at once gives, and no piece ends
within a character. Knows one answer's ids and nothing of where they come from. Made by
Tokenizer.decoder().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Set

REPLACEMENT = "\ufffd"

# A character of UTF-8 has at most 4 bytes and a token at least one, so text that is still
# incomplete after 4 ids is rare: bytes that are no text, or tokens that straddle characters.
EAGER_IDS = 4


class IncrementalDecoder:
    """Holds back what later ids may still change.

    A token's text depends on its neighbours (a word's leading space, the bytes of one
    character), so new ids are decoded behind the ids of the piece before them, and the
    difference is the new piece: the window of text-generation-inference and vLLM,
    https://github.com/vllm-project/vllm/blob/main/vllm/transformers_utils/detokenizer_utils.py

    The cost of an id is constant: a window that stays incomplete is decoded at 1 to 4 pending
    ids, then at 8, 16, 32 and so on.
    """

    def __init__(
        self,
        decode: Callable[[list[int]], str],
        special_ids: Set[int],
        byte_ids: Set[int],
    ) -> None:
        """`special_ids` have no text; `byte_ids` are the byte tokens of a ByteFallback decoder."""
        self._decode = decode
        self._special_ids = special_ids
        self._byte_ids = byte_ids
        self._known: list[int] = []
        """The ids of the last piece: the context of the pending ones."""
        self._known_text = ""
        self._pending: list[int] = []

    def push(self, token_id: int) -> str:
        """The text that `token_id` completes, often none."""
        # Dropped here rather than by decode: behind a special token alone, the next token would
        # be decoded as the first of a text and could lose its space.
        if token_id in self._special_ids:
            return ""
        self._pending.append(token_id)
        # ByteFallback decodes a run of byte tokens as a whole: one bad byte turns the whole run
        # into U+FFFD, so nothing of it is certain before it ends.
        if token_id in self._byte_ids or not self._is_due():
            return ""
        text = self._window_text()
        if text.endswith(REPLACEMENT) or len(text) <= len(self._known_text):
            return ""
        return self._advance(text)

    def flush(self) -> str:
        """The rest, when no more ids come: a character cut short is U+FFFD."""
        return self._advance(self._window_text()) if self._pending else ""

    def _is_due(self) -> bool:
        count = len(self._pending)
        return count <= EAGER_IDS or count.bit_count() == 1

    def _window_text(self) -> str:
        return self._decode(self._known + self._pending)

    def _advance(self, text: str) -> str:
        piece = text[len(self._known_text) :]
        self._known, self._pending = self._pending, []
        self._known_text = self._decode(self._known)
        return piece
