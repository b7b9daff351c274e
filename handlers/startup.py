"""The composition root: all that a process loads before its first request.

The ONNX session takes longest, and ONNX Runtime lets go of the interpreter's lock while it loads.
So its thread starts as early as it can: once numpy and ONNX Runtime are imported, and before
anything else is, since imports in two threads only hold each other up. The tokenizer, the chat
template and the code around them load beside it. Knows no cloud. Each adapter calls it once, at
import, and keeps the Service as a module-level global that every warm call finds ready.
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

from handlers.artifact.parallel_read import settle
from handlers.artifact.source import Source, open_source
from handlers.config import keep_openblas_to_one_thread
from handlers.log import LOGGER, set_up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from handlers.api.app import Api
    from handlers.api.model import ServedModel
    from handlers.artifact.manifest import Artifact
    from handlers.config import Settings
    from handlers.engine.crank import Crank


class Service(msgspec.Struct, frozen=True):
    """What one process serves with."""

    api: Api
    engine: Crank
    settings: Settings


class Loading(msgspec.Struct, frozen=True):
    """An engine on its way."""

    artifact: Artifact
    engine: Future[Any]
    """An Engine, or the Encoder of an artefact that has one."""
    ms: dict[str, float]
    """What each part took."""


_begun: list[Loading] = []
"""What `begin` has started and `load_service` has not yet asked for."""


def begin(settings: Settings) -> None:
    """Starts to load what `load_service` will then find on its way.

    For a process that imports much before its adapter: Cloud Run's server takes 200 ms. Raises
    ArtifactError and FetchError.
    """
    _begun.append(_load(settings))


def load_service(settings: Settings) -> Service:
    """Loads everything, once. Raises StartupError when the process cannot serve.

    What took how many milliseconds goes to the log and to /healthz: `imports` (numpy and ONNX
    Runtime), `session` (in its thread), `text` (beside it), and `process`, from the start of the
    process to now. Of a model from outside the image also `source`, until its files were there,
    which the session waits for.
    """
    try:
        return _finish(_begun.pop() if _begun else _load(settings), settings)
    finally:
        gc.freeze()
        gc.enable()


def _load(settings: Settings) -> Loading:
    set_up(settings.log_level)
    source = open_source(settings)
    artifact = source.artifact
    # A start makes 30,000 objects that stay. Looking for garbage among them takes 20 ms of it, and
    # as long again at some request, unless they are frozen when all is there.
    gc.disable()
    ms: dict[str, float] = {}
    keep_openblas_to_one_thread()
    with _timed("imports", ms):
        load = _encoder_load() if artifact.encodes else _engine_load()
    engine = _begin(source, partial(_load_engine, load, source, settings, ms))
    return Loading(artifact, engine, ms)


def _begin(source: Source, load: Callable[[], Any]) -> Future[Any]:
    """Loads in a thread once the files are there.

    The end of the process waits for that thread, in which ONNX Runtime must not be cut short, and
    for a download it does not.
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

        tokenizer = Tokenizer.load(artifact.tokenizer)
        preload(artifact.manifest.task)
        model_of = _encoder_model(artifact) if artifact.encodes else _decoder_model(artifact)
    engine = loading.engine.result()
    ms["session"] = round(engine.load_ms, 1)
    ms["process"] = process_age_ms()
    fields = {"model": artifact.manifest.model.id, "ms": ms}
    if not artifact.encodes:
        fields["baked_tokens"] = engine.baked_tokens
    LOGGER.info("ready", extra={"fields": fields})
    api = Api(model_of(engine, tokenizer, settings=settings, load_ms=ms), settings)
    return Service(api, engine, settings)


def _decoder_model(artifact: Artifact) -> Callable[..., ServedModel]:
    """The chat template is loaded now, the engine comes when it is ready."""
    from handlers.api.model import DecoderModel
    from handlers.text import completion  # noqa: F401 - DecoderModel.of finds it imported
    from handlers.text.template import ChatTemplate

    return partial(DecoderModel.of, template=ChatTemplate.of(artifact), manifest=artifact.manifest)


def _encoder_model(artifact: Artifact) -> Callable[..., ServedModel]:
    from handlers.api.model import EncoderModel
    from handlers.text import input_reader  # noqa: F401 - as above

    return partial(EncoderModel.of, info=artifact.encoder, manifest=artifact.manifest)


def _engine_load() -> Callable[[Artifact, Settings], Any]:
    """Imports what it needs, the session among it."""
    from handlers.engine.engine import Engine
    from handlers.engine.session import Session  # noqa: F401 - Engine.load finds it imported

    return Engine.load


def _encoder_load() -> Callable[[Artifact, Settings], Any]:
    from handlers.encoder.encoder import Encoder
    from handlers.encoder.session import Session  # noqa: F401 - as above

    return Encoder.load


@contextmanager
def _timed(name: str, load_ms: dict[str, float]) -> Iterator[None]:
    started = time.monotonic()
    yield
    load_ms[name] = round((time.monotonic() - started) * 1000, 1)


def process_age_ms(stat: Path = Path("/proc/self/stat")) -> float:
    """Milliseconds since the kernel started this process, the interpreter's own start included.

    Field 22 of proc(5)'s stat counts clock ticks, of 10 ms, since boot.
    """
    # The second field, a name in parentheses, may itself hold spaces.
    fields = stat.read_text().rpartition(")")[2].split()
    started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return round((time.clock_gettime(time.CLOCK_BOOTTIME) - started) * 1000, 1)
