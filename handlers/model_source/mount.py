"""A model on a mounted network file system: EFS, S3 Files, Filestore, a bucket by FUSE.

ONNX Runtime maps the weights, so each page that the first token touches would be a request of its
own, one after the other. Here the files are read from end to end, in parallel, which leaves them in
the page cache. Since all bytes pass by, they are checked by sha256: two exports of one model have
files of the same sizes, so sizes do not show that a directory holds files of both. Knows no cloud.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from io import RawIOBase

from handlers.artifact.manifest import Artifact
from handlers.errors import ArtifactError
from handlers.model_source.background import in_background
from handlers.model_source.in_order import in_order, parts


def read_ahead(artifact: Artifact) -> Future[float]:
    """Begins in a thread. Gives the milliseconds it took; raises ArtifactError."""
    return in_background("read-ahead", partial(_read, artifact))


def _read(artifact: Artifact) -> float:
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
    """Opened anew for each part: gcsfuse decides by handle whether reads are sequential."""
    path = artifact.directory / name
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            return name, _whole(file, stop - start)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}.") from error


def _whole(file: RawIOBase, size: int) -> bytes:
    """Up to the end of the file; one read may give less than is there, by FUSE for one."""
    content = b""
    while more := file.read(size - len(content)):
        content += more
    return content
