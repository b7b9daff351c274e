"""The interface of what turns the arguments of one tool call into JSON."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from typing import NamedTuple


class Held(NamedTuple):
    """The end of arguments that an answer ends in. A key that was cut is left out."""

    json: str = ""
    """The last piece of the arguments."""
    closing: str | None = None
    """The JSON that makes the arguments whole, None where they cannot end here."""


class Converter(ABC):
    """Turns the text of one call's arguments into JSON, piece by piece.

    `opens` says where they begin; then `push` takes the text from there on.
    """

    broken = False
    """Whether the text was no arguments in this style: the call is not whole."""

    @abstractmethod
    def opens(self, text: str, start: int) -> int:
        """Returns the place from `start` on at which arguments begin, or NO, or MORE."""

    @abstractmethod
    def push(self, text: str) -> tuple[str, str | None]:
        """Returns the JSON that is certain now, and the text after the arguments.

        The latter is None while they go on.
        """

    @abstractmethod
    def finish(self) -> Held:
        """Returns what was held back, where the answer ends within arguments."""


def escaped(text: str) -> str:
    """Returns a part of a string as it stands in JSON, without quotes."""
    return json.dumps(text, ensure_ascii=False)[1:-1]
