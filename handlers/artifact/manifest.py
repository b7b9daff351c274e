"""The manifest of an artefact, the directory that model_export writes and handlers/ serves.

    manifest.json         the struct Manifest
    model.onnx            the decoder's or the encoder's graph (docs/graph.md)
    model.onnx.data       its weights
    tokenizer.json        Hugging Face tokenizers
    chat_template.jinja   the model's chat template, if it has one
    tool_template.jinja   the one for chats with tools, if that is another
    prefix.kv             a baked prefix, if the recipe names one (engine/prefix_cache.py)
    draft.onnx            a draft model's graph, if the recipe names one (engine/draft_model.py)
    draft.onnx.data       its weights, unless they are the first layers of the model's own
    draft.kv              the baked prefix as the draft model has it, if it has weights of its own
    LICENSE*              the model's licence
    draft.LICENSE*        the draft model's, if it is another model

This file and graph_contract.py are all that the two halves agree on: model_export writes a Manifest
and a graph, the runtime reads them. At start each file is checked by existence and size, which a
truncated copy cannot pass and which costs no read of the weights. A model from outside the image
is also checked by sha256.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from handlers.errors import ArtifactError

if TYPE_CHECKING:
    from handlers.artifact.dialect import Dialect

SCHEMA = 1
MANIFEST = "manifest.json"
GRAPH = "model.onnx"
WEIGHTS = "model.onnx.data"
TOKENIZER = "tokenizer.json"
CHAT_TEMPLATE = "chat_template.jinja"
TOOL_TEMPLATE = "tool_template.jinja"
PREFIX = "prefix.kv"
DRAFT_GRAPH = "draft.onnx"
DRAFT_WEIGHTS = "draft.onnx.data"
DRAFT_PREFIX = "draft.kv"

Task = Literal["text-generation", "feature-extraction", "text-classification", "text-ranking"]
"""Hugging Face's names. The first decodes; the others give vectors, labels, a pair's score."""


class ModelInfo(msgspec.Struct, frozen=True):
    """The model that the artefact was made from."""

    id: str
    """The name that clients see: "SmolLM2-135M-Instruct"."""
    source: str
    revision: str
    architecture: str
    licence: str


class PairPrompt(msgspec.Struct, frozen=True):
    """The prompt in which a language model reads a query and a document."""

    template: str
    """Has {query} and {document} once each, and {instruction} where there is one."""
    instruction: str | None = None
    """What {instruction} stands for where a request names none."""


class EncoderInfo(msgspec.Struct, frozen=True):
    """The properties of an encoder."""

    dimensions: int
    """Length of an embedding; 0 where the graph gives logits."""
    max_tokens: int
    """The longest input that the model takes, special tokens included."""
    labels: tuple[str, ...] = ()
    """A classifier's, in the order of its logits; a ranker has one."""
    activation: Literal["softmax", "sigmoid", "none"] = "none"
    """The function that turns logits into scores."""
    prompts: dict[str, str] = {}
    """Texts that the model wants before an input, by the kind of input: "query"."""
    default_prompt: str | None = None
    """The name of the prompt that a text gets when the request names none."""
    pair_prompt: PairPrompt | None = None
    """That of a ranker that is a language model; None for one that reads the pair alone."""


class SamplingDefaults(msgspec.Struct, frozen=True, omit_defaults=True):
    """The sampling parameters that the model's authors recommend, in a request's ranges."""

    temperature: Annotated[float, msgspec.Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    min_p: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(ge=0.01, le=10)] | None = None

    @property
    def given(self) -> dict[str, float | int]:
        """The parameters that are set."""
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        return {name: value for name, value in values.items() if value is not None}


class FileInfo(msgspec.Struct, frozen=True):
    """One file of the artefact."""

    size: Annotated[int, msgspec.Meta(ge=0)]
    sha256: str


class PrefixInfo(msgspec.Struct, frozen=True):
    """The baked prefix: its length, and the files and versions that decide its values."""

    tokens: int
    computed_with: dict[str, str]
    """sha256 of files and versions of packages, by name."""


class DraftInfo(msgspec.Struct, frozen=True):
    """The draft model, whose guesses at the next ids the model checks a few at a time."""

    model: str
    """Its id; the model's own where it is made of that one's first layers."""
    layers: Annotated[int, msgspec.Meta(ge=0)]
    """The model's own layers that it is made of; 0 where it is another model."""
    precision: str
    acceptance: Annotated[float, msgspec.Meta(ge=0, le=1)]
    """Share of its guesses that come true where all before them have, as the export measured."""
    measured: dict[str, Any]
    """The acceptance on text and on chats, and the gain that follows from it."""
    origin: ModelInfo | None = None
    """Where another model is from, and its licence; None where it is the model's own layers."""


class PlanInfo(msgspec.Struct, frozen=True):
    """The plan of an export that chose the weights of each matrix by itself."""

    weights: dict[str, str]
    """Those of each matrix, by its name in the graph: compact4, int4, int8 and so on."""
    measured: tuple[dict[str, Any], ...]
    """What was tried, and its drift on the half of the text that the gates do not judge by."""


class Manifest(msgspec.Struct, frozen=True):
    """The content of manifest.json."""

    schema: int
    task: Task
    model: ModelInfo
    precision: str
    vocab_size: int
    context_length: int
    """The longest sequence, prompt and answer together, that the graph's positions allow."""
    eos_token_ids: tuple[int, ...]
    """Ids that end an answer: the model's own and its chat template's end of turn."""
    special_tokens: dict[str, str]
    """Texts that a chat template may name: bos_token, eos_token, pad_token, unk_token."""
    files: dict[str, FileInfo]
    created: int
    """Unix seconds."""
    versions: dict[str, str]
    """The packages that made the artefact."""
    verification: dict[str, Any]
    """The export's measurements, gate by gate."""
    prefix: PrefixInfo | None = None
    encoder: EncoderInfo | None = None
    """None for a decoder."""
    sampling: SamplingDefaults = SamplingDefaults()
    """Defaults of a decoder's requests."""
    plan: PlanInfo | None = None
    """None where the recipe named the weights."""
    draft: DraftInfo | None = None
    """None where the recipe names no draft model."""
    dialect: msgspec.Raw = msgspec.Raw(b"{}")
    """The JSON of a Dialect: what the chat templates show of the answers' form.

    Decoded by Artifact.dialect beside the loading of the weights, since its types take 1 ms.
    """


class Artifact(msgspec.Struct, frozen=True):
    """An artefact on disk whose files have been checked."""

    directory: Path
    manifest: Manifest

    @classmethod
    def open(cls, directory: Path) -> Artifact:
        """Opens the artefact in a directory. Raises ArtifactError when it cannot be served."""
        manifest = _read_manifest(directory / MANIFEST)
        for name, info in manifest.files.items():
            _check_file(directory / name, info)
        return cls(directory, manifest)

    @property
    def is_encoder(self) -> bool:
        """Returns whether the model is an encoder."""
        return self.manifest.task != "text-generation"

    @property
    def encoder(self) -> EncoderInfo:
        """The encoder's properties. Raises ArtifactError where the manifest has none."""
        if self.manifest.encoder is None:
            raise ArtifactError(
                f"{self.directory / MANIFEST} has the task {self.manifest.task} and says nothing "
                f"of an encoder: export the model again."
            )
        return self.manifest.encoder

    @property
    def dialect(self) -> Dialect:
        """The form of a decoder's answers. Raises ArtifactError where the manifest's is none."""
        from handlers.artifact.dialect import Dialect

        try:
            return msgspec.json.decode(self.manifest.dialect, type=Dialect)
        except msgspec.DecodeError as error:
            raise ArtifactError(
                f"{self.directory / MANIFEST} has a dialect that cannot be read: {error}. Export "
                f"the model again."
            ) from None

    @property
    def graph(self) -> Path:
        """The ONNX file."""
        return self.directory / GRAPH

    @property
    def tokenizer(self) -> Path:
        """The path of tokenizer.json."""
        return self.directory / TOKENIZER

    @property
    def prefix(self) -> Path:
        """The path of the baked prefix, which exists if the manifest has one."""
        return self.directory / PREFIX

    @property
    def chat_template(self) -> str | None:
        """The text of the chat template, None for a model without. Raises ArtifactError."""
        return self._text(CHAT_TEMPLATE)

    @property
    def tool_template(self) -> str | None:
        """The text of the template for chats with tools, None if that is the chat template."""
        return self._text(TOOL_TEMPLATE)

    def _text(self, name: str) -> str | None:
        if name not in self.manifest.files:
            return None
        path = self.directory / name
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ArtifactError(
                f"{path} cannot be read: {error}. Export the model again."
            ) from None


class _Schema(msgspec.Struct, frozen=True):
    schema: int


def parse_manifest(text: bytes | memoryview, where: Path | str) -> Manifest:
    """Parses manifest.json. `where` is for the messages. Raises ArtifactError."""
    try:
        schema = msgspec.json.decode(text, type=_Schema).schema
        if schema != SCHEMA:
            raise ArtifactError(
                f"{where} has schema {schema}, but this version of Kindling reads schema {SCHEMA}: "
                f"export the model again, or deploy the version that wrote it."
            )
        manifest = msgspec.json.decode(text, type=Manifest)
    except msgspec.DecodeError as error:
        raise ArtifactError(
            f"{where} is not a manifest: {error}. Export the model again."
        ) from None
    for name in _needed(manifest):
        if name not in manifest.files:
            raise ArtifactError(f"{where} lists no {name}: export it again.")
    return manifest


def _needed(manifest: Manifest) -> list[str]:
    draft = manifest.draft
    optional = {
        PREFIX: manifest.prefix is not None,
        DRAFT_GRAPH: draft is not None,
        DRAFT_WEIGHTS: draft is not None and draft.layers == 0,
    }
    return [GRAPH, TOKENIZER, *(name for name, needed in optional.items() if needed)]


def _read_manifest(path: Path) -> Manifest:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ArtifactError(
            f"No model at {path.parent}: cannot read {path.name} ({error.strerror}). Export one "
            f"with `make export`, or point MODEL_DIR at one."
        ) from None
    return parse_manifest(text, path)


def _check_file(path: Path, info: FileInfo) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise ArtifactError(f"{path} is missing: export the model again.") from None
    if size != info.size:
        raise ArtifactError(
            f"{path} has {size} bytes where its manifest says {info.size}: the copy is "
            f"incomplete or changed. Copy or export it again."
        )
