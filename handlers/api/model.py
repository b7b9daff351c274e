"""The loaded model as the endpoints see it: engine, tokenizer, manifest and worker pools.

Nothing of a decoder is imported for an encoder, nor the other way round.
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec

from handlers.api.worker_pool import WorkerPool
from handlers.artifact.manifest import SamplingDefaults
from handlers.errors import InvalidRequest
from handlers.text.tokenizer import PromptEncoder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from handlers.artifact.manifest import EncoderInfo, Manifest
    from handlers.config import Settings
    from handlers.encoder.encoder import Encoder
    from handlers.engine.engine import Engine
    from handlers.grammar.compiler import GrammarCompiler
    from handlers.text.chat_template import ChatTemplate, Messages, PromptOptions, Tools
    from handlers.text.completion import Completer
    from handlers.text.control_tokens import PromptText
    from handlers.text.encoder_inputs import EncoderInputBuilder
    from handlers.text.infill import InfillFormat
    from handlers.text.pair_prompt import PairPromptBuilder
    from handlers.text.tokenizer import Tokenizer
    from handlers.text.user_text import UserText

# Two threads for each kind of work: one long prompt does not delay the short ones, nor one grammar
# that compiles for a second another one (llguidance does not hold the interpreter's lock while it
# compiles). More would take the engine's CPU.
THREADS = 2


class ServedModel(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The one model of the process, whatever its task."""

    engine: Engine | Encoder
    tokenizer: Tokenizer
    prompt_encoder: PromptEncoder
    tokenising: WorkerPool
    """Where prompts are rendered and tokenised."""
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
    def slots(self) -> int | None:
        """Returns how many sequences run at once, None for an encoder."""
        return None

    @property
    def guess_rate(self) -> float | None:
        """The share of a draft model's guesses that come true, None where there is none."""
        return None

    @property
    def chat_template(self) -> str | None:
        """The source of the model's chat template, None for a model that has none."""
        return None

    @property
    def sampling_defaults(self) -> dict[str, float] | None:
        """The sampling of a request that asks for none, None for an encoder."""
        return None

    @cached_property
    def fingerprint(self) -> str:
        """OpenAI's system_fingerprint, made of the hashes of the artefact's files.

        A checksum of them: hashlib would bring OpenSSL to the first answer.
        """
        files = sorted(self.manifest.files.items())
        listed = "".join(f"{name} {info.sha256}\n" for name, info in files)
        return f"fp_{crc32(listed.encode()):08x}"


class DecoderModel(ServedModel, frozen=True, kw_only=True, dict=True):
    """A loaded decoder, which generates text."""

    engine: Engine
    completer: Completer
    template: ChatTemplate
    compiling: WorkerPool
    """Where grammars are compiled."""
    sampling: Mapping[str, float]
    """SamplingParams' fields where a request is silent, as the model's authors would have them."""
    special_tokens_in_text: bool = False
    """Whether the names of special tokens in messages become these tokens."""

    @classmethod
    def of(
        cls,
        engine: Engine,
        tokenizer: Tokenizer,
        template: ChatTemplate,
        manifest: Manifest,
        settings: Settings,
        load_ms: Mapping[str, float],
    ) -> DecoderModel:
        """Makes the model of what startup has loaded.

        `load_ms`: milliseconds of each part of startup, for /healthz.
        """
        from handlers.text.completion import Completer

        return cls(
            engine=engine,
            prompt_encoder=PromptEncoder(
                tokenizer, engine.context_length, _advice(engine.context_length, manifest)
            ),
            completer=Completer(engine, tokenizer),
            tokenizer=tokenizer,
            template=template,
            tokenising=_worker_pool("tokenising", engine, settings),
            compiling=_worker_pool("compiling", engine, settings),
            sampling=manifest.sampling.given if settings.sampling_defaults else {},
            special_tokens_in_text=settings.special_tokens_in_text,
            manifest=manifest,
            load_ms=load_ms,
            needs_key=settings.api_key is not None,
        )

    @property
    def slots(self) -> int:
        """Returns how many sequences run at once."""
        return self.engine.slots

    @property
    def guess_rate(self) -> float | None:
        """The share of a draft model's guesses that come true lately."""
        return self.engine.guess_rate

    @property
    def chat_template(self) -> str | None:
        """The template's own source."""
        return self.template.source

    def render(self, messages: Messages, tools: Tools | None, options: PromptOptions) -> PromptText:
        """Renders a conversation with the model's chat template. Raises InvalidRequest."""
        if self.special_tokens_in_text:
            from handlers.text.control_tokens import PromptText

            return PromptText(self.template.prompt(messages, tools, options))
        return self._user_text.render(messages, tools, options)

    def infill_format(self, field: str) -> InfillFormat:
        """Returns how the middle of a text is asked for. Raises InvalidRequest that names `field`.

        The model was not trained to fill in if its tokenizer has no tokens for it.
        """
        if self._infill_format is None:
            raise InvalidRequest(
                f"{field} is not supported by this model: its tokenizer has no tokens for filling "
                f"in the middle of a text, such as <|fim_middle|>.",
                param=field,
            )
        return self._infill_format

    @cached_property
    def _infill_format(self) -> InfillFormat | None:
        from handlers.text.infill import InfillFormat

        return InfillFormat.of(self.tokenizer, self.manifest.vocab_size)

    @cached_property
    def _user_text(self) -> UserText:
        """Keeps users' texts text, made by the first request with a conversation."""
        from handlers.text.user_text import UserText

        return UserText(self.template, self.tokenizer.added_tokens)

    @property
    def sampling_defaults(self) -> dict[str, float]:
        """The sampling of a request that asks for none: the model's own, and the engine's."""
        from handlers.engine.params import SamplingParams

        params = SamplingParams(max_tokens=1, **self.sampling)  # type: ignore[arg-type]
        names = SamplingDefaults.__struct_fields__
        return {name: getattr(params, name) for name in names}

    @cached_property
    def grammar_compiler(self) -> GrammarCompiler:
        """The compiler of grammars, made by the first request that needs one."""
        from handlers.grammar.compiler import GrammarCompiler

        return GrammarCompiler(
            self.tokenizer, self.manifest.vocab_size, self.manifest.eos_token_ids
        )


class EncoderModel(ServedModel, frozen=True, kw_only=True, dict=True):
    """A loaded encoder, which embeds, classifies or ranks texts."""

    engine: Encoder
    input_builder: EncoderInputBuilder
    info: EncoderInfo
    pair_prompts: PairPromptBuilder | None = None
    """Of a ranker that is a language model."""

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        tokenizer: Tokenizer,
        info: EncoderInfo,
        manifest: Manifest,
        settings: Settings,
        load_ms: Mapping[str, float],
    ) -> EncoderModel:
        """Makes the model of what startup has loaded.

        `load_ms`: milliseconds of each part of startup, for /healthz.
        """
        from handlers.text.encoder_inputs import EncoderInputBuilder

        return cls(
            engine=encoder,
            tokenizer=tokenizer,
            prompt_encoder=PromptEncoder(tokenizer, None),
            input_builder=EncoderInputBuilder(tokenizer, encoder.context_length),
            info=info,
            pair_prompts=_pair_prompts(encoder, tokenizer, info, settings.special_tokens_in_text),
            tokenising=_worker_pool("tokenising", encoder, settings),
            manifest=manifest,
            load_ms=load_ms,
            needs_key=settings.api_key is not None,
        )


def _pair_prompts(
    encoder: Encoder, tokenizer: Tokenizer, info: EncoderInfo, special_tokens_in_text: bool
) -> PairPromptBuilder | None:
    if info.pair_prompt is None:
        return None
    from handlers.text.pair_prompt import PairPromptBuilder

    return PairPromptBuilder(
        tokenizer, info.pair_prompt, encoder.context_length, special_tokens_in_text
    )


def _worker_pool(name: str, engine: Engine | Encoder, settings: Settings) -> WorkerPool:
    """Makes the pool for one kind of work, which takes as many requests as the engine holds."""
    limit = settings.slots + settings.queue_limit
    return WorkerPool(name, engine, threads=THREADS, limit=limit)


def _advice(context_length: int, manifest: Manifest) -> str:
    """Returns the end of the error about a prompt that is too long: what to do about it."""
    most = manifest.context_length
    if context_length < most:
        return f"Shorten it, or raise KINDLING_CONTEXT_LENGTH: the model takes up to {most:,}."
    return "Shorten it: the model takes no more."
