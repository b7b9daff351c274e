"""Reads in parallel threads and hands the results over in order.

A hash wants the bytes in order, and so does a file that can be resumed by its length alone; a
network wants several requests under way.

Not concurrent.futures' pools: the end of the process waits for their threads, so a start that has
failed would first fetch gigabytes that nobody will use.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from threading import Thread
from typing import TypeVar

T = TypeVar("T")

# AWS advises parts of 8 to 16 MB, and one request for each 85 to 90 MB/s that are wanted:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-design-patterns.html
PART_BYTES = 8 * 1024 * 1024
THREADS = 8


def in_order(reads: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Yields what each read returns, in the order of `reads`, with at most THREADS of them at once.

    Raises what a read raises, at its turn; those that have not begun by then never do.
    """
    window: deque[Future[T]] = deque()
    for read in reads:
        window.append(in_background("read", read))
        if len(window) == THREADS:
            yield window.popleft().result()
    while window:
        yield window.popleft().result()


def parts(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """Cuts [start : stop] into half-open spans of at most PART_BYTES."""
    for at in range(start, stop, PART_BYTES):
        yield at, min(at + PART_BYTES, stop)


def in_background(name: str, work: Callable[[], T]) -> Future[T]:
    """Starts `work` in a daemon thread; the process may end without waiting for it."""
    future: Future[T] = Future()
    Thread(target=settle, args=(future, work), name=name, daemon=True).start()
    return future


def settle(future: Future[T], work: Callable[[], T]) -> None:
    """Sets the future to what `work` returns, or to what it raises."""
    try:
        result = work()
    except BaseException as error:  # noqa: BLE001 - raised where the future is waited for
        future.set_exception(error)
    else:
        future.set_result(result)
