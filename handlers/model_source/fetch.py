"""Fetches a model: manifest.json, then what is read as text, then graph and weights in a thread.

Files come in parts, several at a time, and are written and hashed in order as they arrive. What is
there already, of an earlier process, is not fetched again. Knows no engine. Called by source.py
when MODEL_URI is set.
"""

from __future__ import annotations

import errno
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import msgspec

from handlers.artifact.manifest import (
    GRAPH,
    MANIFEST,
    PREFIX,
    WEIGHTS,
    Artifact,
    FileInfo,
    Manifest,
    parse_manifest,
)
from handlers.errors import ArtifactError, FetchError
from handlers.model_source.background import in_background
from handlers.model_source.cache import directory_of, locked, missing
from handlers.model_source.in_order import in_order, parts
from handlers.model_source.partial import Partial
from handlers.model_source.room import make_room, no_room
from handlers.model_source.store import RemoteFile, Store

log = logging.getLogger(__name__)

# What the engine reads. The rest is read beside it, and small.
LATER = (GRAPH, WEIGHTS, PREFIX)

# What a file may be called. Another's unfinished file ends in .part.
NAME = re.compile(r"(?!.*\.part$)[A-Za-z0-9][A-Za-z0-9 ()+._-]{0,199}")

# The exporter's have 2 to 3 kB.
LONGEST_MANIFEST = 4_000_000


def fetch(uri: str) -> tuple[Artifact, Future[float]]:
    """The model with its text files, and the milliseconds it takes until it has all others.

    Both raise FetchError and ArtifactError.
    """
    started = time.monotonic()
    store = Store(uri)
    manifest_json = _manifest_json(store)
    manifest = _checked(parse_manifest(manifest_json, f"{store.uri}/{MANIFEST}"), store.uri)
    directory = directory_of(manifest_json)
    with _translated(directory), ExitStack() as stack:
        stack.enter_context(locked(directory))
        files = missing(directory, manifest.files)
        make_room(directory, files)
        download = Download(store, directory, started)
        download.fetch({name: info for name, info in files.items() if name not in LATER})
        (directory / MANIFEST).write_bytes(manifest_json)
        weights = in_background("fetch", partial(download.finish, files, stack.pop_all()))
    return Artifact(directory, manifest), weights


def _manifest_json(store: Store) -> memoryview:
    result = store.get(MANIFEST)
    size = result.meta["size"]
    if size > LONGEST_MANIFEST:
        raise ArtifactError(f"{store.uri}/{MANIFEST} has {size:,} bytes, so it is no manifest.")
    with store.translated(MANIFEST):
        return memoryview(result.bytes())


def _checked(manifest: Manifest, uri: str) -> Manifest:
    """A name with a slash or dots would be written to wherever it says. Raises ArtifactError."""
    for name in manifest.files:
        if not NAME.fullmatch(name):
            raise ArtifactError(f"{uri}/{MANIFEST} lists {name[:200]!r}, which is no file's name.")
    return manifest


@contextmanager
def _translated(directory: Path) -> Iterator[None]:
    """What the file system refuses, as a FetchError."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise no_room(directory, "has run out of it") from None
        raise FetchError(
            f"The model cannot be kept at {error.filename or directory} ({error.strerror}): delete "
            f"what is there, or set TMPDIR to another directory."
        ) from error


class Download(msgspec.Struct, frozen=True):
    """One process's fetching of one model."""

    store: Store
    directory: Path
    started: float

    def finish(self, files: Mapping[str, FileInfo], lock: ExitStack) -> float:
        """Fetches those of `files` that are read later. Gives the milliseconds since the start."""
        with lock, _translated(self.directory):
            self.fetch({name: info for name, info in files.items() if name in LATER})
        ms = round((time.monotonic() - self.started) * 1000, 1)
        fetched = sum(info.size for info in files.values())
        fields = {"uri": self.store.uri, "bytes": fetched, "ms": ms}
        log.info("fetched" if fetched else "found", extra={"fields": fields})
        return ms

    def fetch(self, files: Mapping[str, FileInfo]) -> None:
        """Raises FetchError, ArtifactError and OSError."""
        spoilt = self._fetch(files)
        if spoilt:
            log.warning("fetched again", extra={"fields": {"files": list(spoilt)}})
            self._fetch(spoilt)

    def _fetch(self, files: Mapping[str, FileInfo]) -> dict[str, FileInfo]:
        """Gives those that turned out to have begun with other bytes."""
        with ExitStack() as stack:
            partials = {
                name: stack.enter_context(Partial(self.directory / name, info))
                for name, info in files.items()
            }
            for name, content in in_order(self._reads(files, partials)):
                partials[name].append(content)
            return {
                name: files[name]
                for name, file in partials.items()
                if not file.finish(f"{self.store.uri}/{name}")
            }

    def _reads(
        self, files: Mapping[str, FileInfo], partials: Mapping[str, Partial]
    ) -> Iterator[Callable[[], tuple[str, memoryview]]]:
        for name, info in files.items():
            remote = RemoteFile(self.store, name, info.size)
            for start, stop in parts(partials[name].size, info.size):
                yield partial(_part, remote, name, start, stop)


def _part(remote: RemoteFile, name: str, start: int, stop: int) -> tuple[str, memoryview]:
    return name, remote.read(start, stop)
