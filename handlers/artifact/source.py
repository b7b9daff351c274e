"""Opens the model where it lies: in the image, on a mount, or under a URI.

    MODEL_DIR on a local disk        nothing to do: ONNX Runtime maps the weights
    MODEL_DIR on a network's mount   read ahead, and checked by sha256
    MODEL_URI                        fetched, and checked by sha256 (download.py)

A network's mount is EFS, S3 Files, Filestore, or a bucket by FUSE.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from handlers.artifact.file_system import file_system, is_network
from handlers.artifact.manifest import Artifact
from handlers.artifact.parallel_read import in_background, in_order, parts
from handlers.errors import ArtifactError

if TYPE_CHECKING:
    from io import RawIOBase

    from handlers.config import Settings


class Source(msgspec.Struct, frozen=True):
    """A model whose text files are on disk, and whose weights may still be on their way."""

    artifact: Artifact
    weights: Future[float] | None = None
    """The milliseconds that it took to have all files; None where all were there."""

    def wait(self) -> float | None:
        """Waits until all files are there and checked. Raises StartupError."""
        return None if self.weights is None else self.weights.result()


def open_source(settings: Settings) -> Source:
    """Opens the configured model. Raises ArtifactError, and FetchError for MODEL_URI."""
    if settings.model_uri is not None:
        from handlers.artifact.download import fetch  # needs hashlib and obstore

        return Source(*fetch(settings.model_uri))
    artifact = Artifact.open(settings.model_dir)
    if is_network(file_system(artifact.graph)):
        return Source(artifact, read_ahead(artifact))
    return Source(artifact)


def read_ahead(artifact: Artifact) -> Future[float]:
    """Reads all files in a background thread and checks them by sha256.

    ONNX Runtime maps the weights, so each page that the first token touches would be a request of
    its own, one after the other. Read from end to end, in parallel, they lie in the page cache.
    Since all bytes pass by, they are checked: two exports of one model have files of the same
    sizes, so sizes do not show that a directory holds files of both.

    The future has the milliseconds it took, or an ArtifactError.
    """
    return in_background("read-ahead", partial(_read, artifact))


def _read(artifact: Artifact) -> float:
    import hashlib  # takes milliseconds of a start, which a local disk saves

    started = time.monotonic()
    hashes = {name: hashlib.sha256() for name in artifact.manifest.files}
    for name, content in in_order(_reads(artifact)):
        hashes[name].update(content)
    for name, info in artifact.manifest.files.items():
        if hashes[name].hexdigest() != info.sha256:
            raise ArtifactError(
                f"{artifact.directory / name} is not the file that its manifest describes: its "
                f"sha256 differs. Copy all files of one export to MODEL_DIR."
            )
    return round((time.monotonic() - started) * 1000, 1)


def _reads(artifact: Artifact) -> Iterator[Callable[[], tuple[str, bytes]]]:
    for name, info in artifact.manifest.files.items():
        for start, stop in parts(0, info.size):
            yield partial(_part, artifact, name, start, stop)


def _part(artifact: Artifact, name: str, start: int, stop: int) -> tuple[str, bytes]:
    """Opens the file for each part: gcsfuse decides by handle whether reads are sequential."""
    path = artifact.directory / name
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            return name, _whole(file, stop - start)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error


def _whole(file: RawIOBase, size: int) -> bytes:
    """Reads to the end of the file; one read may give less than is there, by FUSE for one."""
    content = b""
    while more := file.read(size - len(content)):
        content += more
    return content
