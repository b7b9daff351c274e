"""Reads in parallel, hands over in order.

A hash wants the bytes in order, and so does a file that can be resumed by its length alone; a
network wants several requests under way. Knows neither files nor networks. Used by mount.py and
fetch.py.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TypeVar

from handlers.model_source.background import in_background

T = TypeVar("T")

# AWS advises parts of 8 to 16 MB, and one request for each 85 to 90 MB/s that are wanted:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/optimizing-performance-design-patterns.html
PART_BYTES = 8 * 1024 * 1024
THREADS = 8


def in_order(reads: Iterable[Callable[[], T]]) -> Iterator[T]:
    """What each read gives, in the order of `reads`. At most THREADS are under way or waiting.

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
    """The half-open spans of at most PART_BYTES that make up [start : stop]."""
    for at in range(start, stop, PART_BYTES):
        yield at, min(at + PART_BYTES, stop)
