"""What every endpoint answers from: the one model that the process serves."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

import msgspec

from handlers.api import aside
from handlers.text import completion

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.engine.artifact import Manifest
    from handlers.text.grammar import Grammars
    from handlers.text.template import ChatTemplate
    from handlers.text.tokenizer import Tokenizer


class Engine(completion.Engine, aside.Engine, Protocol):
    """What is needed of handlers.engine.engine.Engine."""

    @property
    def slots(self) -> int: ...

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...


class Model(msgspec.Struct, frozen=True, dict=True):
    """The loaded model."""

    engine: Engine
    completer: completion.Completer
    tokenizer: Tokenizer
    template: ChatTemplate
    tokenising: aside.Lane
    """Where prompts are rendered and read."""
    compiling: aside.Lane
    """Where grammars are made."""
    manifest: Manifest
    load_ms: Mapping[str, float]
    """Milliseconds of each part of startup, by its name."""
    needs_key: bool = False
    """Whether an API key is configured."""
    ready_since: float = msgspec.field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        """The name that clients see."""
        return self.manifest.model.id

    @cached_property
    def grammars(self) -> Grammars:
        """Made by the first request that needs one."""
        from handlers.text.grammar import Grammars

        return Grammars(self.tokenizer, self.manifest.vocab_size, self.manifest.eos_token_ids)

    @cached_property
    def fingerprint(self) -> str:
        """OpenAI's system_fingerprint, made of the hashes of the artefact's files.

        A checksum of them: hashlib would bring OpenSSL to the first answer.
        """
        files = sorted(self.manifest.files.items())
        listed = "".join(f"{name} {info.sha256}\n" for name, info in files)
        return f"fp_{crc32(listed.encode()):08x}"
