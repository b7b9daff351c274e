"""The composition root: all that a process loads before its first request.

The ONNX session takes longest, and ONNX Runtime lets go of the interpreter's lock while it
loads: it loads in a thread, while the tokenizer, the chat template and the code around them load
beside it. Knows no cloud. Each adapter calls it once, at import, and keeps the Service as a
module-level global that every warm call finds ready.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from handlers.engine.artifact import Artifact
from handlers.log import LOGGER, set_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from handlers.api.routes import Api
    from handlers.config import Settings
    from handlers.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Service:
    """What one process serves with."""

    api: Api
    engine: Engine
    settings: Settings


def load_service(settings: Settings) -> Service:
    """Loads everything, once. Raises StartupError when the process cannot serve.

    What took how many milliseconds goes to the log and to /healthz: `engine` (in the thread:
    importing numpy and onnxruntime, and `session`, the loading itself), `text` (beside it), and
    `process`, from the start of the process to now.
    """
    set_up(settings.log_level)
    artifact = Artifact.open(settings.model_dir)
    load_ms: dict[str, float] = {}
    with ThreadPoolExecutor(1, "load") as pool:
        loading = pool.submit(_load_engine, artifact, settings, load_ms)
        with _timed("text", load_ms):
            # Imported here, beside the session's load: jinja2 and tokenizers cost 100 ms.
            from handlers.api.routes import Api
            from handlers.text.template import ChatTemplate
            from handlers.text.tokenizer import Tokenizer

            tokenizer = Tokenizer.load(artifact.tokenizer)
            template = ChatTemplate.of(artifact)
        engine = loading.result()
    load_ms["session"] = round(engine.load_ms, 1)
    load_ms["process"] = process_age_ms()
    LOGGER.info("ready", extra={"fields": {"model": artifact.manifest.model.id, "ms": load_ms}})
    api = Api(engine, tokenizer, template, artifact.manifest, settings, load_ms)
    return Service(api, engine, settings)


def _load_engine(artifact: Artifact, settings: Settings, load_ms: dict[str, float]) -> Engine:
    with _timed("engine", load_ms):
        from handlers.engine.engine import Engine

        return Engine.load(artifact, settings)


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
