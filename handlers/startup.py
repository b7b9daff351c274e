"""Loads all that a process serves with, before its first request: the composition root.

The ONNX session takes longest, and ONNX Runtime releases the interpreter's lock while it loads.
So its thread starts as early as it can: once numpy and ONNX Runtime are imported, and before
anything else is, since imports in two threads only hold each other up. The tokenizer, the chat
template and the code around them load at the same time. Each adapter calls this once, when it is
imported, and keeps the Service in a module-level global for all its requests.
"""

from __future__ import annotations

import gc
import os
import time
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import msgspec

from handlers import log
from handlers.artifact.parallel_read import settle
from handlers.artifact.source import Source, open_source
from handlers.config import limit_openblas_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from handlers.api.app import Api
    from handlers.api.model import ServedModel
    from handlers.artifact.manifest import Artifact
    from handlers.config import Settings
    from handlers.engine.driver import EngineDriver


class Service(msgspec.Struct, frozen=True):
    """A loaded model, ready to serve."""

    api: Api
    engine: EngineDriver[Any, Any]
    settings: Settings


class Loading(msgspec.Struct, frozen=True):
    """A model of which the engine is still loading."""

    artifact: Artifact
    engine: Future[Any]
    """An Engine, or the Encoder of an artefact that has one."""
    ms: dict[str, float]
    """Milliseconds that each part took so far."""


_started: list[Loading] = []
"""The load that `start_loading` has started, until `load_service` takes it."""


def start_loading(settings: Settings) -> None:
    """Starts the load that `load_service` will finish. Raises ArtifactError and FetchError.

    For a process that imports much before its adapter: Cloud Run's server takes 200 ms.
    """
    _started.append(_start_loading(settings))


def load_service(settings: Settings) -> Service:
    """Loads everything, once. Raises StartupError when the process cannot serve.

    The log and /healthz tell how many milliseconds each part took: `imports` (numpy and ONNX
    Runtime), `session` (in its thread), `text` (at the same time), `process`, from the start of the
    process to now, and `source`, if the session had to wait for files from outside the image.
    """
    try:
        return _finish(_started.pop() if _started else _start_loading(settings), settings)
    finally:
        gc.freeze()
        gc.enable()


def _start_loading(settings: Settings) -> Loading:
    log.configure(settings.log_level)
    source = open_source(settings)
    artifact = source.artifact
    # A start makes 30,000 objects that stay. Looking for garbage among them takes 20 ms of it, and
    # as long again at some request, unless they are frozen when all is there.
    gc.disable()
    ms: dict[str, float] = {}
    limit_openblas_threads()
    with _timed("imports", ms):
        load = _import_encoder() if artifact.is_encoder else _import_engine()
    engine = _load_in_thread(source, partial(_load_engine, load, source, settings, ms))
    return Loading(artifact, engine, ms)


def _load_in_thread(source: Source, load: Callable[[], Any]) -> Future[Any]:
    """Loads in a thread that starts once the files are there.

    The end of the process waits for this thread, since ONNX Runtime must not be cut short, but not
    for a download.
    """
    engine: Future[Any] = Future()
    thread = Thread(target=settle, args=(engine, load), name="load")
    if source.weights is None:
        thread.start()
    else:
        source.weights.add_done_callback(lambda _: thread.start())
    return engine


def _load_engine(
    load: Callable[[Artifact, Settings], Any],
    source: Source,
    settings: Settings,
    ms: dict[str, float],
) -> Any:
    waited = source.wait()
    if waited is not None:
        ms["source"] = waited
    return load(source.artifact, settings)


def _finish(loading: Loading, settings: Settings) -> Service:
    artifact, ms = loading.artifact, loading.ms
    with _timed("text", ms):
        from handlers.api.app import Api
        from handlers.api.routes import preload
        from handlers.text.tokenizer import Tokenizer

        dialect = None if artifact.is_encoder else artifact.dialect
        tokenizer = Tokenizer.load(artifact.tokenizer, dialect)
        preload(artifact.manifest.task)
        model_of = _encoder_model(artifact) if artifact.is_encoder else _decoder_model(artifact)
    engine = loading.engine.result()
    ms["session"] = round(engine.load_ms, 1)
    ms["process"] = process_age_ms()
    fields = {"model": artifact.manifest.model.id, "ms": ms}
    if not artifact.is_encoder:
        fields["baked_tokens"] = engine.baked_tokens
    log.LOGGER.info("ready", extra={"fields": fields})
    api = Api(model_of(engine, tokenizer, settings=settings, load_ms=ms), settings)
    return Service(api, engine, settings)


def _decoder_model(artifact: Artifact) -> Callable[..., ServedModel]:
    """Loads the chat template. Returns the constructor that takes the engine, once it is ready."""
    from handlers.api.model import DecoderModel
    from handlers.text import completion  # noqa: F401 - DecoderModel.of finds it imported
    from handlers.text.chat_template import ChatTemplate

    return partial(DecoderModel.of, template=ChatTemplate.of(artifact), manifest=artifact.manifest)


def _encoder_model(artifact: Artifact) -> Callable[..., ServedModel]:
    from handlers.api.model import EncoderModel
    from handlers.text import encoder_inputs  # noqa: F401 - as above

    return partial(EncoderModel.of, info=artifact.encoder, manifest=artifact.manifest)


def _import_engine() -> Callable[[Artifact, Settings], Any]:
    """Imports numpy, ONNX Runtime and the engine, and returns the engine's constructor."""
    from handlers.engine.engine import Engine
    from handlers.engine.session import Session  # noqa: F401 - Engine.load finds it imported

    return Engine.load


def _import_encoder() -> Callable[[Artifact, Settings], Any]:
    from handlers.encoder.encoder import Encoder
    from handlers.encoder.session import EncoderSession  # noqa: F401 - as above

    return Encoder.load


@contextmanager
def _timed(name: str, load_ms: dict[str, float]) -> Iterator[None]:
    started = time.monotonic()
    yield
    load_ms[name] = round((time.monotonic() - started) * 1000, 1)


def process_age_ms(stat: Path = Path("/proc/self/stat")) -> float:
    """Returns the milliseconds since the kernel started this process.

    Field 22 of proc(5)'s stat counts clock ticks, of 10 ms, since boot.
    """
    # The second field, a name in parentheses, may itself hold spaces.
    fields = stat.read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return round((time.clock_gettime(time.CLOCK_BOOTTIME) - started) * 1000, 1)
