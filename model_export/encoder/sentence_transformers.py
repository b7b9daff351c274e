"""Reads a sentence-transformers model's own files: what follows its transformer, and more.

    modules.json                        the chain: Transformer, Pooling, then Dense and Normalize
    N_Pooling/config.json               the modes of pooling
    N_Dense/config.json, model.safetensors
    sentence_bert_config.json           the longest text, in tokens; older models have sentence_
                                        roberta_config.json, or another architecture's name
    config_sentence_transformers.json   prompts by name, and how many dimensions are kept; of a
                                        CrossEncoder, what makes scores of logits
    N_LogitScore/config.json            of a CrossEncoder that is a language model: the ids of the
                                        tokens by whose logits it judges

A module of another kind, or a setting that the graph could not honour, is refused by its name: to
leave it out would make other embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from model_export.reporting import ExportError

if TYPE_CHECKING:
    import torch

    from model_export.encoder.head import Head

T = TypeVar("T")

_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weighted_mean",
    "pooling_mode_lasttoken": "last_token",
}
_NAMES = {
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weighted_mean",
    "lasttoken": "last_token",
}
"""sentence-transformers' newer spelling, where it is not ours: `"pooling_mode": "lasttoken"`."""
_TRANSFORMER = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "processing_kwargs": {},
}
_DENSE = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
"""Keys that a file may have, and the only values that the graph honours."""


class ModuleEntry(msgspec.Struct, frozen=True):
    """An entry of modules.json."""

    type: str
    path: str


_MESSAGE = {"method": "forward", "method_output_name": "logits", "format": "flat"}
_JUDGE = {
    "transformer_task": "text-generation",
    "module_output_name": "causal_logits",
    "processing_kwargs": {},
}
"""The same of a language model that judges, beside its chat template's settings."""


@dataclass(frozen=True, slots=True)
class LogitScore:
    """The settings of a CrossEncoder that is a language model."""

    yes: int
    no: int | None
    instruction: str | None
    """The prompt that a pair gets by default; None: as the chat template has it."""
    rendering: dict[str, Any]
    """Arguments of the tokenizer's apply_chat_template."""
    max_tokens: int | None


@dataclass(frozen=True, slots=True)
class CrossEncoder:
    """The files' words on a model that classifies or ranks."""

    activation: str | None
    """Its name in torch; None where the files have none."""
    judge: LogitScore | None = None


@dataclass(frozen=True, slots=True)
class SentenceTransformer:
    """The settings and the head that the files describe."""

    head: Head
    max_tokens: int | None = None
    """None: as the transformer and its tokenizer have it."""
    lowercases: bool = False
    """Whether texts are lower-cased before the tokenizer sees them."""
    prompts: dict[str, str] = field(default_factory=dict)
    default_prompt: str | None = None


def read_modules(directory: Path) -> SentenceTransformer | None:
    """Reads the chain of modules; None for a folder without modules.json. Raises ExportError."""
    if not (directory / "modules.json").is_file():
        return None
    modules = _decode(directory / "modules.json", list[ModuleEntry])
    kinds = [_kind(module.type) for module in modules]
    if kinds[:2] != ["Transformer", "Pooling"] or modules[0].path not in ("", "."):
        raise ExportError(
            f"{directory.name}/modules.json begins with {', '.join(kinds[:2])}; only a Transformer "
            f"at the top of the folder and then Pooling can be exported."
        )
    folders = [directory / module.path for module in modules]
    others = [_module(kind, folder) for kind, folder in zip(kinds[2:], folders[2:], strict=True)]
    return _sentence_transformer(directory, _pooling_modes(folders[1]), others)


def read_cross_encoder(directory: Path) -> CrossEncoder:
    """Reads a classifier's or a ranker's files, of which there may be none.

    Raises ExportError for a chain that is more than a Transformer and a LogitScore.
    """
    path = directory / "modules.json"
    modules = _decode(path, list[ModuleEntry]) if path.is_file() else []
    kinds = [_kind(module.type) for module in modules]
    settings = _read_if_there(directory / "config_sentence_transformers.json")
    named = settings.get("activation_fn")
    activation = None if named is None else str(named)
    if kinds == ["Transformer", "LogitScore"]:
        score = _read(directory / modules[1].path / "config.json")
        return CrossEncoder(activation, _logit_score(directory, score, settings))
    if len(kinds) > 1:
        raise ExportError(
            f"{directory.name}/modules.json has {len(kinds)} modules; a classifier or a ranker of "
            f"one Transformer alone, or with a LogitScore, can be exported."
        )
    if settings.get("default_prompt_name") is not None:
        raise ExportError(
            f"{directory.name}/config_sentence_transformers.json puts a prompt in front of every "
            f"text (default_prompt_name), which a classifier or a ranker here does not."
        )
    return CrossEncoder(activation)


def _logit_score(directory: Path, score: dict[str, Any], settings: dict[str, Any]) -> LogitScore:
    name, transformer = _transformer_settings(directory)
    processing = dict(transformer.get("processing_kwargs") or {})
    rendering = processing.pop("chat_template", {})
    _check_settings(name, {**transformer, "processing_kwargs": processing}, _JUDGE)
    message = (transformer.get("modality_config") or {}).get("message")
    _check_settings(
        name, {"modality_config.message": message}, {"modality_config.message": _MESSAGE}
    )
    prompts, default = settings.get("prompts") or {}, settings.get("default_prompt_name")
    return LogitScore(
        yes=score["true_token_id"],
        no=score.get("false_token_id"),
        instruction=prompts.get(default),
        rendering=rendering,
        max_tokens=transformer.get("max_seq_length"),
    )


def _transformer_settings(directory: Path) -> tuple[str, dict[str, Any]]:
    """Returns the file's name for errors, and what it has."""
    named = sorted(directory.glob("sentence_*_config.json"))
    return (f"{directory.name}/{named[0].name}", _read(named[0])) if named else ("", {})


def _kind(name: str) -> str:
    """Returns a module's short name; all of it for a repository's own code, which is unknown."""
    return name.rpartition(".")[2] if name.startswith("sentence_transformers.") else name


def head_of(modes: list[str], others: list[torch.nn.Module]) -> Head:
    """Returns pooling by `modes` (recipe.POOLING_MODES), then `others`."""
    from model_export.encoder.head import Head, Pooling

    return Head(Pooling(modes), others)


def _sentence_transformer(
    directory: Path, modes: list[str], others: list[torch.nn.Module]
) -> SentenceTransformer:
    from model_export.encoder.head import Truncate

    name, transformer = _transformer_settings(directory)
    _check_settings(name, transformer, _TRANSFORMER)
    settings = _read_if_there(directory / "config_sentence_transformers.json")
    kept = settings.get("truncate_dim")
    return SentenceTransformer(
        head=head_of(modes, others if kept is None else [*others, Truncate(int(kept))]),
        max_tokens=transformer.get("max_seq_length"),
        lowercases=bool(transformer.get("do_lower_case", False)),
        prompts=dict(settings.get("prompts") or {}),
        default_prompt=settings.get("default_prompt_name"),
    )


def _pooling_modes(folder: Path) -> list[str]:
    config = _read(folder / "config.json")
    if config.get("include_prompt") is False:
        raise ExportError(
            f"{folder.name}/config.json leaves a prompt's tokens out of the pooling "
            f"(include_prompt), which the graph cannot do: it does not know which they are."
        )
    named = config.get("pooling_mode") or [mode for key, mode in _MODES.items() if config.get(key)]
    modes = [_NAMES.get(name, name) for name in ([named] if isinstance(named, str) else named)]
    if not modes or not set(modes) <= set(_MODES.values()):
        raise ExportError(
            f"{folder.name}/config.json pools by {', '.join(modes) or 'nothing'}; known are "
            f"{', '.join(_MODES.values())}."
        )
    return modes


def _module(kind: str, folder: Path) -> torch.nn.Module:
    from model_export.encoder.head import Normalize

    if kind == "Normalize":
        return Normalize()
    if kind == "Dense":
        return _dense(folder)
    raise ExportError(
        f"modules.json has a module {kind} ({folder.name}), which cannot be exported; Dense and "
        f"Normalize can."
    )


def _dense(folder: Path) -> torch.nn.Module:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from model_export.encoder.head import ACTIVATIONS, Dense

    config = _read(folder / "config.json")
    _check_settings(f"{folder.name}/config.json", config, _DENSE)
    name = str(config.get("activation_function", "torch.nn.Tanh"))
    activation = name.rpartition(".")[2].rstrip("()")
    if not name.startswith("torch.") or activation not in ACTIVATIONS:
        raise ExportError(
            f"{folder.name} has the activation {name}; known are torch's {', '.join(ACTIVATIONS)}."
        )
    if not (folder / "model.safetensors").is_file():
        raise ExportError(
            f"{folder.name} has no model.safetensors. Pickled weights (.bin) are not loaded, since "
            f"loading them runs code: save the model again."
        )
    try:
        weights = load_file(folder / "model.safetensors")
        return Dense(weights["linear.weight"], weights.get("linear.bias"), activation)
    except (KeyError, SafetensorError) as error:
        raise ExportError(f"{folder.name}/model.safetensors cannot be read: {error}") from None


def _check_settings(name: str, found: dict[str, Any], honoured: dict[str, Any]) -> None:
    """Raises ExportError, naming the first setting that is another than the graph has."""
    for key, value in honoured.items():
        if found.get(key) not in (None, value):
            raise ExportError(
                f"{name} has {key} {found[key]!r}, but only {value!r} can be exported."
            )


def _read_if_there(path: Path) -> dict[str, Any]:
    return _read(path) if path.is_file() else {}


def _read(path: Path) -> dict[str, Any]:
    return _decode(path, dict[str, Any])


def _decode(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise ExportError(f"{path.parent.name}/{path.name} cannot be read: {error}") from None
