"""What the endpoints of a decoder answer from."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from handlers.api import served
from handlers.api.aside import Lane
from handlers.artifact.manifest import SamplingDefaults
from handlers.engine.params import SamplingParams
from handlers.text import completion
from handlers.text.prompt_reader import PromptReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.artifact.manifest import Manifest
    from handlers.config import Settings
    from handlers.grammar.compiler import GrammarCompiler
    from handlers.text.template import ChatTemplate
    from handlers.text.tokenizer import Tokenizer


class Engine(completion.Engine, served.Engine, Protocol):
    """What is needed of handlers.engine.engine.Engine."""

    @property
    def slots(self) -> int: ...


class Model(served.Served, frozen=True, kw_only=True, dict=True):
    """The loaded model."""

    engine: Engine
    completer: completion.Completer
    template: ChatTemplate
    compiling: Lane
    """Where grammars are made."""
    sampling: Mapping[str, float]
    """SamplingParams' fields where a request is silent, as the model's authors would have them."""

    @classmethod
    def of(
        cls,
        engine: Engine,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        manifest: Manifest,
        settings: Settings,
        load_ms: Mapping[str, float],
    ) -> Model:
        """Makes the model of what startup has loaded.

        `load_ms`: milliseconds of each part of startup, for /healthz.
        """
        held = settings.slots + settings.queue_limit  # of the engine; a lane holds no fewer
        return cls(
            engine=engine,
            reader=PromptReader(
                tokenizer, engine.context_length, _advice(engine.context_length, manifest)
            ),
            completer=completion.Completer(engine, tokenizer),
            tokenizer=tokenizer,
            template=template,
            # Two, so that one long prompt does not keep the short ones; more would take the CPU.
            tokenising=Lane("tokenising", engine, threads=2, limit=held),
            # Two, so that one grammar that compiles for a second keeps nobody else's: llguidance
            # holds no lock of the interpreter's while it compiles.
            compiling=Lane("compiling", engine, threads=2, limit=held),
            sampling=manifest.sampling.given if settings.sampling_defaults else {},
            manifest=manifest,
            load_ms=load_ms,
            needs_key=settings.api_key is not None,
        )

    @property
    def limits(self) -> dict[str, int]:
        """The limits of every model, and the sequences that run at once."""
        return {**super().limits, "slots": self.engine.slots}

    @property
    def chat_template(self) -> str | None:
        """The template's own source."""
        return self.template.source

    @property
    def defaults(self) -> dict[str, dict[str, float]]:
        """The sampling of a request that is silent: the model's own, and ours besides."""
        params = SamplingParams(max_tokens=1, **self.sampling)  # type: ignore[arg-type]
        names = SamplingDefaults.__struct_fields__
        return {"sampling_defaults": {name: getattr(params, name) for name in names}}

    @cached_property
    def grammars(self) -> GrammarCompiler:
        """The compiler of grammars, made by the first request that needs one."""
        from handlers.grammar.compiler import GrammarCompiler

        return GrammarCompiler(
            self.tokenizer, self.manifest.vocab_size, self.manifest.eos_token_ids
        )


def _advice(context_length: int, manifest: Manifest) -> str:
    """The end of the error about a prompt that is too long: what to do."""
    most = manifest.context_length
    if context_length < most:
        return f"Shorten it, or raise KINDLING_CONTEXT_LENGTH: the model takes up to {most:,}."
    return "Shorten it: the model takes no more."
