"""Downloads a model: manifest.json, then what is read as text, then graph and weights in a thread.

Files come in parts, several at a time, and are written and hashed in order as they arrive. What an
earlier process has downloaded is not fetched again.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Self

import msgspec

from handlers.artifact.disk_cache import (
    cache_directory,
    locked,
    make_space,
    no_space,
    partial_path,
    pending_files,
)
from handlers.artifact.manifest import (
    DRAFT_GRAPH,
    DRAFT_PREFIX,
    DRAFT_WEIGHTS,
    GRAPH,
    MANIFEST,
    PREFIX,
    WEIGHTS,
    Artifact,
    FileInfo,
    Manifest,
    parse_manifest,
)
from handlers.artifact.object_store import ObjectStore, RemoteFile
from handlers.artifact.parallel_read import PART_BYTES, in_background, in_order, parts
from handlers.errors import ArtifactError, FetchError

log = logging.getLogger(__name__)

# What the engine reads. The rest is read beside it, and small.
LATER = (GRAPH, WEIGHTS, PREFIX, DRAFT_GRAPH, DRAFT_WEIGHTS, DRAFT_PREFIX)

# What a file may be called. Another's unfinished file ends in .part.
NAME = re.compile(r"(?!.*\.part$)[A-Za-z0-9][A-Za-z0-9 ()+._-]{0,199}")

# The exporter's have 2 to 3 kB.
LONGEST_MANIFEST = 4_000_000


def fetch(uri: str) -> tuple[Artifact, Future[float]]:
    """Downloads the text files of a model and begins to download its graph and weights.

    The future has the milliseconds until all files are there. Both raise FetchError and
    ArtifactError.
    """
    started = time.monotonic()
    store = ObjectStore(uri)
    manifest_json = _manifest_json(store)
    manifest = _checked(parse_manifest(manifest_json, f"{store.uri}/{MANIFEST}"), store.uri)
    directory = cache_directory(manifest_json)
    with _as_fetch_errors(directory), ExitStack() as stack:
        stack.enter_context(locked(directory))
        files = pending_files(directory, manifest.files)
        make_space(directory, files)
        download = Download(store, directory, started)
        download.fetch({name: info for name, info in files.items() if name not in LATER})
        (directory / MANIFEST).write_bytes(manifest_json)
        weights = in_background("fetch", partial(download.finish, files, stack.pop_all()))
    return Artifact(directory, manifest), weights


def _manifest_json(store: ObjectStore) -> memoryview:
    result = store.get(MANIFEST)
    size = result.meta["size"]
    if size > LONGEST_MANIFEST:
        raise ArtifactError(f"{store.uri}/{MANIFEST} has {size:,} bytes, so it is no manifest.")
    with store.as_fetch_errors(MANIFEST):
        return memoryview(result.bytes())


def _checked(manifest: Manifest, uri: str) -> Manifest:
    """Refuses file names that would lead out of the directory. Raises ArtifactError."""
    for name in manifest.files:
        if not NAME.fullmatch(name):
            raise ArtifactError(f"{uri}/{MANIFEST} lists {name[:200]!r}, which is no file's name.")
    return manifest


@contextmanager
def _as_fetch_errors(directory: Path) -> Iterator[None]:
    """Turns what the file system refuses into a FetchError."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise no_space(directory, "has run out of it") from None
        raise FetchError(
            f"The model cannot be kept at {error.filename or directory} ({error.strerror}): delete "
            f"what is there, or set TMPDIR to another directory."
        ) from error


class Download(msgspec.Struct, frozen=True):
    """The download of one model by this process."""

    store: ObjectStore
    directory: Path
    started: float

    def finish(self, files: Mapping[str, FileInfo], lock: ExitStack) -> float:
        """Fetches the files that are read later. Returns the milliseconds since the start."""
        with lock, _as_fetch_errors(self.directory):
            self.fetch({name: info for name, info in files.items() if name in LATER})
        ms = round((time.monotonic() - self.started) * 1000, 1)
        fetched = sum(info.size for info in files.values())
        fields = {"uri": self.store.uri, "bytes": fetched, "ms": ms}
        log.info("fetched" if fetched else "found", extra={"fields": fields})
        return ms

    def fetch(self, files: Mapping[str, FileInfo]) -> None:
        """Fetches `files`, a damaged one twice. Raises FetchError, ArtifactError and OSError."""
        damaged = self._fetch(files)
        if damaged:
            log.warning("fetched again", extra={"fields": {"files": list(damaged)}})
            self._fetch(damaged)

    def _fetch(self, files: Mapping[str, FileInfo]) -> dict[str, FileInfo]:
        """Returns those whose beginning, left by an earlier process, was damaged."""
        with ExitStack() as stack:
            resumed = {
                name: stack.enter_context(ResumableFile(self.directory / name, info))
                for name, info in files.items()
            }
            for name, content in in_order(self._reads(files, resumed)):
                resumed[name].append(content)
            return {
                name: files[name]
                for name, file in resumed.items()
                if not file.finish(f"{self.store.uri}/{name}")
            }

    def _reads(
        self, files: Mapping[str, FileInfo], resumed: Mapping[str, ResumableFile]
    ) -> Iterator[Callable[[], tuple[str, memoryview]]]:
        for name, info in files.items():
            remote = RemoteFile(self.store, name, info.size)
            for start, stop in parts(resumed[name].size, info.size):
                yield partial(_part, remote, name, start, stop)


def _part(remote: RemoteFile, name: str, start: int, stop: int) -> tuple[str, memoryview]:
    return name, remote.read(start, stop)


class ResumableFile:
    """A file that is being downloaded, open for appending: its beginning, and the hash of that.

    What a killed process leaves is the file's beginning, so its length is all the state there is;
    the next process hashes that much anew and goes on. Only a verified file gets its name.
    """

    def __init__(self, path: Path, info: FileInfo) -> None:
        """Opens it, and hashes what is there. A context that closes it. Raises OSError."""
        self._path, self._info = path, info
        self._hash = hashlib.sha256()
        self._file = partial_path(path).open("a+b", buffering=0)
        self.size = 0
        """Bytes that an earlier process left."""
        self._file.seek(0)
        while content := self._file.read(PART_BYTES):
            self._hash.update(content)
            self.size += len(content)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, content: memoryview) -> None:
        """Writes and hashes `content`. Raises OSError."""
        self._hash.update(content)
        while content:
            content = content[self._file.write(content) :]

    def finish(self, where: str) -> bool:
        """Renames it to its name, or deletes it when its sha256 is not the manifest's.

        Returns False when that may be due to what an earlier process left. Raises ArtifactError
        when all bytes came from `where`; and OSError.
        """
        if self._hash.hexdigest() == self._info.sha256:
            partial_path(self._path).rename(self._path)
            return True
        partial_path(self._path).unlink()
        if self.size > 0:
            return False
        raise ArtifactError(
            f"{where} is not the file that its manifest describes: its sha256 differs. Upload "
            f"all files of one export, manifest.json last; and start again."
        )
