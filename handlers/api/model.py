"""What every endpoint answers from: the one model that the process serves."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from handlers.text import completion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.engine.artifact import Manifest
    from handlers.text.template import ChatTemplate
    from handlers.text.tokenizer import Tokenizer


class Engine(completion.Engine, Protocol):
    """What is needed of handlers.engine.engine.Engine."""

    @property
    def accepting(self) -> bool: ...

    @property
    def slots(self) -> int: ...

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Model:
    """The loaded model."""

    engine: Engine
    completer: completion.Completer
    tokenizer: Tokenizer
    template: ChatTemplate
    manifest: Manifest
    load_ms: Mapping[str, float]
    """Milliseconds of each part of startup, by its name."""
    needs_key: bool = False
    """Whether an API key is configured."""
    ready_since: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        """The name that clients see."""
        return self.manifest.model.id
