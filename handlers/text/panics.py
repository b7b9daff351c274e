"""A panic in a library's Rust is the error of the one request that it was working for.

It comes to Python as a BaseException, which no handler of errors catches: the request would get no
answer of ours, and whoever runs it could end.
"""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from handlers.errors import EngineFault, ends_a_task

if TYPE_CHECKING:
    from collections.abc import Callable

Given = ParamSpec("Given")
Made = TypeVar("Made")


def panic_is_fault(
    library: str,
) -> Callable[[Callable[Given, Made]], Callable[Given, Made]]:
    """Makes a function raise EngineFault where it panics. Every other error stays what it is.

    `library`: what to call in the log the library that the function calls.
    """

    def guard(work: Callable[Given, Made]) -> Callable[Given, Made]:
        @wraps(work)
        def guarded(*given: Given.args, **named: Given.kwargs) -> Made:
            try:
                return work(*given, **named)
            except BaseException as error:
                if isinstance(error, Exception) or ends_a_task(error):
                    raise
                raise EngineFault(f"{library} panicked: {error}") from error

        return guarded

    return guard
