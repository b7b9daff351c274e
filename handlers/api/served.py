"""What every endpoint answers from, whatever the model's task: the one model of the process."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Protocol
from zlib import crc32

import msgspec

from handlers.api import aside

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.artifact.manifest import Manifest
    from handlers.text.prompt_reader import PromptReader
    from handlers.text.tokenizer import Tokenizer


class Engine(aside.Engine, Protocol):
    """What is needed of the decoder's engine and of the encoder."""

    @property
    def context_length(self) -> int: ...

    @property
    def running(self) -> int: ...

    @property
    def waiting(self) -> int: ...


class Served(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The loaded model."""

    engine: Engine
    tokenizer: Tokenizer
    reader: PromptReader
    tokenising: aside.Lane
    """Where prompts are rendered and read."""
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

    @property
    def limits(self) -> dict[str, int]:
        """The limits that /healthz tells."""
        return {"context_length": self.engine.context_length}

    @property
    def chat_template(self) -> str | None:
        """The source of the model's chat template, None for a model that has none."""
        return None

    @property
    def defaults(self) -> dict[str, dict[str, float]]:
        """The defaults that /healthz tells."""
        return {}

    @cached_property
    def fingerprint(self) -> str:
        """OpenAI's system_fingerprint, made of the hashes of the artefact's files.

        A checksum of them: hashlib would bring OpenSSL to the first answer.
        """
        files = sorted(self.manifest.files.items())
        listed = "".join(f"{name} {info.sha256}\n" for name, info in files)
        return f"fp_{crc32(listed.encode()):08x}"
