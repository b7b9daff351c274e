"""Remembers which parts of a file are written, so that a save that was killed goes on from there.

A line for each part has its number and the CRC-32 of each of its tensors. The journal is only
believed where the file's own bytes agree, so nothing has to reach the disk in any order.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self

_LINE = re.compile(r"(\d+)((?: [0-9a-f]{8})+)")

Checksums = tuple[int, ...]


class Journal:
    """The lines of a file; one of another layout is as none."""

    def __init__(self, path: Path, layout: str) -> None:
        self._path = path
        self.known = self._read(layout)
        """The checksums of the parts that were written, by their numbers."""
        lines = [self._line(part, checksums) for part, checksums in self.known.items()]
        self._path.write_text("".join((f"{layout}\n", *lines)), encoding="ascii")
        self._file = self._path.open("a", encoding="ascii")

    def add(self, part: int, checksums: Checksums) -> None:
        """Notes that a part is written."""
        if self.known.get(part) != checksums:
            self.known[part] = checksums
            self._file.write(self._line(part, checksums))
            self._file.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def remove(self) -> None:
        """Deletes the journal of a file that is whole."""
        self._path.unlink()

    def _read(self, layout: str) -> dict[int, Checksums]:
        try:
            first, *lines = self._path.read_text("ascii", errors="replace").split("\n")
        except FileNotFoundError:
            return {}
        found = [match for line in lines if (match := _LINE.fullmatch(line))]
        if first != layout:
            return {}
        return {int(match[1]): tuple(int(each, 16) for each in match[2].split()) for match in found}

    def _line(self, part: int, checksums: Checksums) -> str:
        return f"{part} {' '.join(f'{each:08x}' for each in checksums)}\n"
