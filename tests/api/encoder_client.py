"""Requests to an encoder's Api without a cloud around it: a real encoder over a fake session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from handlers.api.app import Api
from handlers.api.model import EncoderModel
from handlers.artifact.manifest import SCHEMA, EncoderInfo, Manifest, ModelInfo, Task
from handlers.config import Settings
from handlers.encoder.encoder import Encoder
from handlers.text.tokenizer import Tokenizer
from tests.api.client import ApiClient
from tests.encoder.fake_runner import LONGEST, WIDTH, FakeRunner, row_of
from tests.support.encoder_tasks import INFOS
from tests.support.tiny_tokenizers import WORD_PIECES, word_piece

TOKENIZER = Tokenizer(word_piece())
LABELS = ("sad", "plain", "glad")


class EncoderClient(ApiClient):
    """One encoder's Api."""

    def __init__(
        self,
        task: Task,
        runner: FakeRunner | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        info: EncoderInfo | None = None,
    ) -> None:
        settings = Settings.from_environ({"MODEL_DIR": "unused", **(environ or {})})
        self.runner = runner or FakeRunner()
        self.encoder = Encoder(
            self.runner, width=WIDTH, vocab_size=WORD_PIECES, max_tokens=LONGEST, limit=36
        )
        info = info or INFOS[task]
        model = EncoderModel.of(self.encoder, TOKENIZER, info, manifest(task), settings, {})
        super().__init__(Api(model, settings))


def manifest(task: Task) -> Manifest:
    return Manifest(
        schema=SCHEMA,
        task=task,
        model=ModelInfo("Tiny", "here", "1", "BertModel", "Apache-2.0"),
        precision="fp32",
        vocab_size=WORD_PIECES,
        context_length=LONGEST,
        eos_token_ids=(),
        special_tokens={},
        files={},
        created=1_700_000_000,
        versions={},
        verification={},
    )


def row_of_text(text: str) -> list[float]:
    """Returns what the fake session gives for a text."""
    return row_of(TOKENIZER.encode(text, add_special_tokens=True))


def row_of_pair(query: str, document: str) -> list[float]:
    (pair,) = TOKENIZER.encode_all([(query, document)])
    return row_of(pair.ids, pair.type_ids)


def ids_of(texts: Sequence[str]) -> list[list[int]]:
    return [TOKENIZER.encode(text, add_special_tokens=True) for text in texts]
