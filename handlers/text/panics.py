"""A panic of the tokenizers' Rust is the error of the one request whose text it was.

It comes to Python as a BaseException, which no handler of errors catches: the request would get no
answer of ours, and whoever runs it could end.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from handlers.errors import EngineFault

if TYPE_CHECKING:
    from collections.abc import Callable

Given = ParamSpec("Given")
Made = TypeVar("Made")


def panic_is_fault(work: Callable[Given, Made]) -> Callable[Given, Made]:
    """Lets what panics raise EngineFault. Every other error stays what it is."""

    @wraps(work)
    def guarded(*given: Given.args, **named: Given.kwargs) -> Made:
        try:
            return work(*given, **named)
        except (Exception, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as panic:
            raise EngineFault(f"The tokenizer panicked: {panic}") from panic

    return guarded
