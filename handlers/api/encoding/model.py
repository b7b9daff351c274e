"""What the endpoints of an encoder answer from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from handlers.api import served
from handlers.api.aside import Lane
from handlers.text.input_reader import InputReader
from handlers.text.prompt_reader import PromptReader

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from handlers.artifact.manifest import EncoderInfo, Manifest
    from handlers.config import Settings
    from handlers.encoder.batch import Input
    from handlers.encoder.encoding import EncodeStats
    from handlers.text.tokenizer import Tokenizer


class Encoding(Protocol):
    """What is needed of handlers.encoder.encoding.Encoding."""

    async def rows(self) -> NDArray[np.float32]: ...

    def stats(self) -> EncodeStats: ...


class Encoder(served.Engine, Protocol):
    """What is needed of handlers.encoder.encoder.Encoder."""

    def submit(self, inputs: Sequence[Input], deadline: float | None) -> Encoding: ...


class EncoderModel(served.Served, frozen=True, kw_only=True, dict=True):
    """The loaded model."""

    engine: Encoder
    inputs: InputReader
    info: EncoderInfo

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
        """`load_ms`: milliseconds of each part of startup, for /healthz."""
        held = settings.slots + settings.queue_limit  # of the encoder; a lane holds no fewer
        return cls(
            engine=encoder,
            tokenizer=tokenizer,
            reader=PromptReader(tokenizer, None),
            inputs=InputReader(tokenizer, encoder.context_length),
            info=info,
            # Two, so that one long request does not keep the short ones.
            tokenising=Lane("tokenising", encoder, threads=2, limit=held),
            manifest=manifest,
            load_ms=load_ms,
            needs_key=settings.api_key is not None,
        )
