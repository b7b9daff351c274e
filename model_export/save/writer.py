"""Computes the weights of a file and writes them at their places, on several threads.

The work is cut into parts of some rows of one group of tensors, which are the same with any number
of threads. numpy, pread and pwrite work beside one another in threads.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.reporting import Progress
from model_export.save.journal import Checksums, Journal
from model_export.save.layout import Layout, Place, PlacedGroup
from model_export.weights import reads_by_rows, size_of

_READ = 4 << 20
"""Bytes of float32 that are read at once, and are one part."""
_COMPUTED = 512 << 10
"""Bytes of float32 that are computed at once: they and what is made of them stay in the cache of a
core. Affine int4 takes 700 MB/s of them, 4 MB at once 190 (Xeon of 2021, 1.25 MB a core)."""
_CHECKED = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """Some rows of a group, from `start` to `stop`."""

    number: int
    placed: PlacedGroup
    start: int
    stop: int

    def places(self) -> list[tuple[int, Place]]:
        """Returns the numbers of the group's tensors and what the part is of their places."""
        group, found = self.placed.group, []
        entries = -(-group.weight.shape[0] // group.rows_per_entry)
        first = self.start // group.rows_per_entry
        after = -(-self.stop // group.rows_per_entry)
        for index, whole in sorted(self.placed.places.items()):
            entry = whole.size // entries
            found.append((index, Place(whole.offset + first * entry, (after - first) * entry)))
        return found


def write_weights(
    path: Path, layout: Layout, journal: Journal, threads: int, progress: Progress
) -> None:
    """Writes all tensors of `layout`. Parts that `journal` has and whose bytes agree are kept."""
    parts = list(_parts(layout))
    with _opened(path, layout.end, keep=bool(journal.known)) as file:
        for place, array in layout.arrays:
            _write(file, _bytes_of(array), place.offset)
            progress.add(place.size)
        _fill_gaps(file, layout)

        def work(part: _Part) -> tuple[Checksums, bool]:
            known = journal.known.get(part.number)
            if known is not None and _checksums_in(file, part) == known:
                return known, True
            return _compute(file, part), False

        pool = ThreadPoolExecutor(threads)
        try:
            for part, (checksums, kept) in zip(parts, pool.map(work, parts), strict=True):
                journal.add(part.number, checksums)
                progress.add(sum(place.size for _, place in part.places()), kept=kept)
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _opened(path: Path, size: int, *, keep: bool) -> Iterator[int]:
    """Opens a file of `size` bytes, zeros where it had none."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | (0 if keep else os.O_TRUNC), 0o666)
    try:
        os.ftruncate(file, size)
        yield file
    finally:
        os.close(file)


def _parts(layout: Layout) -> Iterator[_Part]:
    """Cuts each group into parts of whole entries."""
    number = 0
    for placed in layout.groups.values():
        weight = placed.group.weight
        rows = weight.shape[0]
        step = _rows_in(_READ, placed) if reads_by_rows(weight) else max(rows, 1)
        for start in range(0, rows, step):
            yield _Part(number, placed, start, min(start + step, rows))
            number += 1


def _rows_in(size: int, placed: PlacedGroup) -> int:
    """Returns the rows of so many bytes of float32, in whole entries, at least one."""
    weight, entry = placed.group.weight, placed.group.rows_per_entry
    row = 4 * size_of(weight) // max(weight.shape[0], 1)
    return max(size // max(row * entry, 1), 1) * entry


def _compute(file: int, part: _Part) -> Checksums:
    """Computes and writes a part. Returns a checksum for each of its tensors."""
    places, group = part.places(), part.placed.group
    checksums, offsets = [0] * len(places), [place.offset for _, place in places]
    rows = group.weight.read(part.start, part.stop)
    step = _rows_in(_COMPUTED, part.placed)
    for first in range(0, len(rows), step):
        arrays = group.compute(rows[first : first + step])
        for number, (index, _) in enumerate(places):
            content = _bytes_of(arrays[index])
            _write(file, content, offsets[number])
            checksums[number] = zlib.crc32(content, checksums[number])
            offsets[number] += content.nbytes
    return tuple(checksums)


def _checksums_in(file: int, part: _Part) -> Checksums:
    """Reads what the file has in the place of a part."""
    return tuple(_checksum_in(file, place) for _, place in part.places())


def _checksum_in(file: int, place: Place) -> int:
    checksum = 0
    for offset in range(place.offset, place.end, _CHECKED):
        checksum = zlib.crc32(os.pread(file, min(_CHECKED, place.end - offset), offset), checksum)
    return checksum


def _bytes_of(array: NDArray[np.generic]) -> memoryview:
    """Returns the bytes as they lie in the file: in their order, the small end first."""
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data


def _write(file: int, content: memoryview, offset: int) -> None:
    """Writes all of it: one call of the system takes 2 GB."""
    while content:
        written = os.pwrite(file, content, offset)
        content, offset = content[written:], offset + written


def _fill_gaps(file: int, layout: Layout) -> None:
    """Writes zeros up to the next page, where a file that was damaged may have others."""
    end = 0
    for place in sorted(layout.places(), key=lambda place: place.offset):
        _write(file, memoryview(bytes(place.offset - end)), end)
        end = place.end
