"""Where the model comes from: the image, a mount, or a URI.

    MODEL_DIR on a local disk        nothing to do: ONNX Runtime maps the weights
    MODEL_DIR on a network's mount   read ahead, and checked by sha256 (mount.py)
    MODEL_URI                        fetched, and checked by sha256 (fetch.py)

What the last two need is imported when they are used. Called by startup.py.
"""

from __future__ import annotations

from concurrent.futures import Future
from typing import TYPE_CHECKING

import msgspec

from handlers.artifact.manifest import Artifact
from handlers.model_source.file_system import file_system, is_network

if TYPE_CHECKING:
    from handlers.config import Settings


class Source(msgspec.Struct, frozen=True):
    """A model whose text files are there, and whose weights may be on their way."""

    artifact: Artifact
    weights: Future[float] | None = None
    """The milliseconds that it took to have all files; None where all were there."""

    def wait(self) -> float | None:
        """Until all files are there and checked. Raises StartupError."""
        return None if self.weights is None else self.weights.result()


def open_source(settings: Settings) -> Source:
    """Raises ArtifactError, and FetchError when MODEL_URI cannot be fetched."""
    if settings.model_uri is not None:
        from handlers.model_source.fetch import fetch

        return Source(*fetch(settings.model_uri))
    artifact = Artifact.open(settings.model_dir)
    if is_network(file_system(artifact.graph)):
        from handlers.model_source.mount import read_ahead

        return Source(artifact, read_ahead(artifact))
    return Source(artifact)
