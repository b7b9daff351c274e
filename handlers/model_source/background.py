"""Work beside the caller, in a thread of its own.

Not concurrent.futures' pools: the end of the process waits for their threads, so a start that has
failed would first fetch gigabytes that nobody will use. Called by in_order.py, fetch.py, mount.py
and startup.py.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")


def in_background(name: str, work: Callable[[], T]) -> Future[T]:
    """Begins at once. The process may end without it."""
    future: Future[T] = Future()
    Thread(target=settle, args=(future, work), name=name, daemon=True).start()
    return future


def settle(future: Future[T], work: Callable[[], T]) -> None:
    """Gives the future what `work` gives, or raises."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - whoever waits shall have it
        future.set_exception(error)
    else:
        future.set_result(result)
