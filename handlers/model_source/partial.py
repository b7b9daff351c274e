"""A file on its way: its beginning, in order, and the hash of it.

What a killed process leaves is the file's beginning, so its length is all the state there is; the
next process hashes that much anew and goes on. Only a verified file gets its name. Used by
fetch.py.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

from handlers.artifact.manifest import FileInfo
from handlers.errors import ArtifactError
from handlers.model_source.in_order import PART_BYTES


class Partial:
    """Open for appending."""

    def __init__(self, path: Path, info: FileInfo) -> None:
        """Goes on with what is there. A context that closes it. Raises OSError."""
        self._path, self._info = path, info
        self._hash = hashlib.sha256()
        self._file = unfinished(path).open("a+b", buffering=0)
        self.size = 0
        """Of what an earlier process left."""
        self._file.seek(0)
        while content := self._file.read(PART_BYTES):
            self._hash.update(content)
            self.size += len(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, content: memoryview) -> None:
        """Raises OSError."""
        self._hash.update(content)
        while content:
            content = content[self._file.write(content) :]

    def finish(self, where: str) -> bool:
        """Gives it its name, or deletes it when its bytes are not what the manifest describes.

        False when that may be the fault of what an earlier process left. Raises ArtifactError when
        all bytes came from `where`; and OSError.
        """
        if self._hash.hexdigest() == self._info.sha256:
            unfinished(self._path).rename(self._path)
            return True
        unfinished(self._path).unlink()
        if self.size > 0:
            return False
        raise ArtifactError(
            f"{where} is not the file that its manifest describes: its sha256 differs. Upload "
            f"all files of one export, manifest.json last; and start again."
        )


def unfinished(path: Path) -> Path:
    """Where a file's beginning lies."""
    return path.with_name(f"{path.name}.part")
