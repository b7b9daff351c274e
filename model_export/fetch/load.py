"""Loads a source with transformers: the fp32 model, its tokenizer, its chat template."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from huggingface_hub.errors import StrictDataclassError

from model_export.fetch.locate import Located, locate
from model_export.recipe import Source
from model_export.reporting import ExportError, Report

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


@dataclass(frozen=True, slots=True)
class ModelKind:
    """The kind of model that a source is loaded as."""

    words: str
    """The kind in a sentence: "a decoder"."""
    auto_class: str
    """transformers' class, by name, since importing it takes seconds."""
    otherwise: str
    """A sentence on what to do where weights are missing."""
    unused: tuple[str, ...] = ()
    """How the names of weights begin that may be missing, since no graph uses them."""

    def lacks(self, description: str, keys: Iterable[str]) -> ExportError | None:
        """Returns the error of missing weights, None where none of `keys` is needed."""
        missing = [key for key in sorted(keys) if not key.startswith(self.unused)]
        if not missing:
            return None
        return ExportError(
            f"{description} cannot be loaded as {self.words}: its files lack "
            f"{', '.join(missing[:3])}{' and others' if len(missing) > 3 else ''}."
            f" {self.otherwise}"
        )


_READERS = {
    "*.model": {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"},
    "*.tiktoken": {"tiktoken": "tiktoken"},
}
"""Packages by which transformers reads a tokenizer's file, and the modules in them."""

GENERATION_CONFIG = "generation_config.json"

DECODER = ModelKind(
    "a decoder",
    "AutoModelForCausalLM",
    otherwise="Check that all of its files are there, and that it is a model that writes text.",
)
TRANSFORMER = ModelKind(
    "a transformer",
    "AutoModel",
    unused=("pooler.",),
    otherwise="Check that all of its files are there.",
)
CLASSIFIER = ModelKind(
    "a classifier",
    "AutoModelForSequenceClassification",
    otherwise="A model that judges by the words yes and no, as Qwen3-Reranker, has none of its "
    "own: name the words and the prompt in [export.judge] (docs/encoder.md), or export a "
    "converted copy, whose name often ends in -seq-cls.",
)
JUDGE = ModelKind(
    "a language model that judges pairs",
    "AutoModelForCausalLM",
    otherwise=DECODER.otherwise,
)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A loaded source: the reference that the export must reproduce."""

    model: PreTrainedModel
    """fp32, in evaluation mode. Its large weights are stand-ins (fetch/stand_ins.py)."""
    tokenizer: PreTrainedTokenizerFast
    chat_template: str | None
    """jinja2 source."""
    tool_template: str | None
    """The same for chats with tools, where that is another."""
    licence_files: tuple[Path, ...]
    source: str
    revision: str
    generation_config: dict[str, Any] = field(default_factory=dict)
    """generation_config.json as it is; empty where there is none."""

    @property
    def vocabulary_size(self) -> int:
        """Rows of a decoder's logits or an encoder's embeddings; a tokenizer may have other ids."""
        model: Any = self.model
        embeddings = model.get_output_embeddings() or model.get_input_embeddings()
        return int(embeddings.weight.shape[0])


def fetch(source: Source, report: Report) -> LoadedModel:
    """Downloads what is not on disk, then loads a decoder in fp32. Raises ExportError."""
    located = locate(source, report)
    report(f"load {located.description} in fp32")
    return load(located, report=report)


def load(located: Located, kind: ModelKind = DECODER, *, report: Report) -> LoadedModel:
    """Loads a model in fp32. Raises ExportError when transformers cannot, or not as `kind`."""
    if located.gguf_file is None:
        return _load(located, kind, report)
    from model_export.fetch.gguf_file import parsed_once

    with parsed_once(located.directory / located.gguf_file):
        return _load(located, kind, report)


def _load(located: Located, kind: ModelKind, report: Report) -> LoadedModel:
    tokenizer = _load_tokenizer(located)
    templates = _templates(located, tokenizer.chat_template, kind)
    return LoadedModel(
        model=_load_model(located, kind, report),
        tokenizer=tokenizer,
        chat_template=templates.get("default"),
        tool_template=templates.get("tool_use"),
        licence_files=located.licence_files,
        source=located.description,
        revision=located.revision,
        generation_config=_generation_config(located),
    )


def _generation_config(located: Located) -> dict[str, Any]:
    """Reads the file: transformers' object does not tell its values from defaults."""
    path = located.directory / GENERATION_CONFIG
    if located.gguf_file is not None or not path.is_file():
        return {}
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise ExportError(
            f"{located.description}: {GENERATION_CONFIG} cannot be read: {error}. Mend it, or "
            f"delete it: the model then has no defaults of its own."
        ) from None


def _load_model(located: Located, kind: ModelKind, report: Report) -> PreTrainedModel:
    from model_export.fetch.skeleton import load_skeleton

    try:
        model, missing = load_skeleton(located, kind.auto_class, report)
    except UNREADABLE as error:
        raise _cannot_load(located, f"as {kind.words}", error) from error
    _refuse_missing(located, kind, missing)
    return model


def _refuse_missing(located: Located, kind: ModelKind, keys: Iterable[str]) -> None:
    """Refuses weights that are not in the files: transformers fills them with random numbers."""
    if error := kind.lacks(located.description, keys):
        raise error


def _load_tokenizer(located: Located) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    from model_export.fetch.gguf_tokenizer import correct

    try:
        tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(
            located.directory,
            gguf_file=located.gguf_file,
            local_files_only=True,
            trust_remote_code=False,
        )
    # ImportError: some slow tokenizers want sentencepiece or tiktoken.
    except (*UNREADABLE, ImportError) as error:
        raise _lacks_package(located) or _cannot_load(located, "its tokenizer", error) from error
    if not tokenizer.is_fast:
        raise ExportError(
            f"{located.description}: transformers has no fast tokenizer for it, so there is no "
            f"tokenizer.json that the runtime could read."
        )
    if located.gguf_file is not None:
        correct(tokenizer, located.directory / located.gguf_file)
    return tokenizer


def _lacks_package(located: Located) -> ExportError | None:
    """Names what to install, where tokenizer.json has to be made of a file that is no text."""
    if located.gguf_file is not None or (located.directory / "tokenizer.json").is_file():
        return None
    for pattern, packages in _READERS.items():
        missing = [name for name, module in packages.items() if not _is_installed(module)]
        for path in located.directory.glob(pattern):
            if missing:
                return ExportError(
                    f"{located.description} has no tokenizer.json, and to make one of {path.name} "
                    f"transformers needs what is not installed: pip install {' '.join(missing)}."
                )
    return None


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of a package around it
        return False


def _templates(
    located: Located, template: str | dict[str, str] | None, kind: ModelKind
) -> dict[str, str]:
    """Returns templates by name: transformers takes "tool_use" with tools, or "default"."""
    if not isinstance(template, dict):
        return {} if template is None else {"default": template}
    if "default" not in template and kind is DECODER:
        raise ExportError(
            f"{located.description} has chat templates named {', '.join(sorted(template))}, and "
            f'none named "default" for a chat without tools: write that one as '
            f"chat_template.jinja into the folder and export from there."
        )
    return template


def _cannot_load(located: Located, what: str, error: Exception) -> ExportError:
    return ExportError(
        f"{located.description}: transformers cannot load {what}: {reason_of(error)}"
    )


UNREADABLE = (OSError, ValueError, TypeError, KeyError, RuntimeError, StrictDataclassError)
"""What transformers raises for files that it cannot take; the last of a config.json, since 5."""


def reason_of(error: Exception) -> str:
    """Returns the error's first line, or our own words where transformers asks to be trusted.

    Every call passes trust_remote_code=False: without it transformers asks at the terminal whether
    to run the code of the repository, and takes a y for an answer.
    """
    words = str(error).strip()
    if "trust_remote_code" in words:
        return (
            "its code is not in transformers but comes with its files, and the export does not run "
            "code that comes with a model."
        )
    first, _, rest = (words or type(error).__name__).partition("\n")
    return f"{first} {rest.strip()}" if first.endswith(":") else first
