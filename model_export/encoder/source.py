"""Loads an encoder and its head, and finds what the manifest says of them.

The model's own files come first: sentence-transformers' for pooling, prompts and the longest
text, config.json for labels and what makes scores of logits. Where they say nothing, the recipe
must; a guess would be taken for the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any, Literal

from handlers.artifact.manifest import EncoderInfo
from model_export.encoder.judge import Judge, judge_of_files, judge_of_recipe
from model_export.encoder.sentence_transformers import (
    CrossEncoder,
    SentenceTransformer,
    head_of,
    read_cross_encoder,
    read_modules,
)
from model_export.fetch.load import CLASSIFIER, JUDGE, TRANSFORMER, LoadedModel, ModelKind, load
from model_export.fetch.locate import Located, locate
from model_export.fetch.stand_ins import fill
from model_export.reporting import ExportError, Report

if TYPE_CHECKING:
    from model_export.encoder.head import Head
    from model_export.recipe import EncoderExport, EncoderRecipe

Activation = Literal["softmax", "sigmoid", "none"]

_ACTIVATIONS: dict[str, Activation] = {
    "Identity": "none",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
}


@dataclass(frozen=True, slots=True)
class EncoderSource:
    """A loaded encoder, its head, and what the manifest says of them."""

    loaded: LoadedModel
    head: Head | None
    """None for a classifier or a ranker."""
    info: EncoderInfo
    judge: Judge | None = None
    """Of a ranker that is a language model."""


def fetch_encoder(recipe: EncoderRecipe, report: Report) -> EncoderSource:
    """Downloads what is not on disk, then loads the model in fp32. Raises ExportError."""
    located = locate(recipe.source, report)
    report(f"load {located.description} in fp32")
    if recipe.export.task == "feature-extraction":
        modules = read_modules(located.directory)
        return _embedder(recipe.export, _load(located, TRANSFORMER, report), modules)
    files = read_cross_encoder(located.directory)
    if recipe.export.judge is not None or files.judge is not None:
        return _judge(recipe.export, _load(located, JUDGE, report), files)
    return _classifier(recipe.export, _load(located, CLASSIFIER, report), files)


def _load(located: Located, kind: ModelKind, report: Report) -> LoadedModel:
    """Loads the model with its weights: an encoder is small, and its reference runs whole."""
    loaded = load(located, kind, report=report)
    fill(loaded.model)
    return loaded


def _embedder(
    export: EncoderExport, loaded: LoadedModel, modules: SentenceTransformer | None
) -> EncoderSource:
    pools = export.pooling is not None or export.normalize is not None
    if modules is not None and pools:
        raise ExportError(
            "The model's modules.json says how it pools and normalises: leave pooling and "
            "normalize out of [export]."
        )
    if modules is None:
        modules = _modules_of(export)
    if modules.lowercases:
        _check_lower_case(loaded)
    if modules.default_prompt is not None and modules.default_prompt not in modules.prompts:
        raise ExportError(
            f"config_sentence_transformers.json has the default_prompt_name "
            f"{modules.default_prompt!r}, which is none of its prompts: "
            f"{', '.join(modules.prompts) or 'it has none'}."
        )
    info = EncoderInfo(
        dimensions=_dimensions(loaded, modules.head),
        max_tokens=_max_tokens(loaded, export.max_tokens, modules.max_tokens),
        prompts=modules.prompts,
        default_prompt=modules.default_prompt,
    )
    return EncoderSource(loaded, modules.head, info)


def _modules_of(export: EncoderExport) -> SentenceTransformer:
    from model_export.encoder.head import Normalize

    if export.pooling is None or export.normalize is None:
        raise ExportError(
            "The model has no modules.json, so it does not say how it makes one vector of a text: "
            'name it in [export], such as pooling = "mean" and normalize = true.'
        )
    others = [Normalize()] if export.normalize else []
    return SentenceTransformer(head_of([export.pooling], list(others)))


def _check_lower_case(loaded: LoadedModel) -> None:
    """Compares every letter that the vocabulary has: all that it lacks are the same unknown."""
    tokenizer = loaded.tokenizer
    lower = [tokenizer(letter)["input_ids"] for letter in ascii_lowercase]
    upper = [tokenizer(letter.upper())["input_ids"] for letter in ascii_lowercase]
    known = [tokenizer.unk_token_id not in ids for ids in lower]
    if [*compress(lower, known)] != [*compress(upper, known)]:
        raise ExportError(
            "sentence_bert_config.json wants texts in lower case (do_lower_case), which the "
            "tokenizer does not make: the runtime would read other words. Set lowercase in "
            "tokenizer.json's normalizer."
        )


def _dimensions(loaded: LoadedModel, head: Head) -> int:
    import torch

    with torch.no_grad():
        states = torch.zeros((1, 1, loaded.model.config.hidden_size))
        return int(head(states, torch.ones((1, 1), dtype=torch.int64)).shape[-1])


def _judge(export: EncoderExport, loaded: LoadedModel, files: CrossEncoder) -> EncoderSource:
    described = []
    if files.judge is not None:
        described.append(judge_of_files(files.judge, loaded.tokenizer))
    if export.judge is not None:
        described.append(judge_of_recipe(export.judge, loaded.tokenizer))
    judge = described[0]
    if described[-1] != judge:
        raise ExportError(
            "The model's modules.json and chat template say how it judges, and [export.judge] "
            "says otherwise: leave it out."
        )
    config = loaded.model.config
    if getattr(config.get_text_config(), "final_logit_softcapping", None):
        raise ExportError(
            "The model caps its logits (final_logit_softcapping), so that the difference of two is "
            "not that of two rows of its output projection, which the graph has."
        )
    limit = None if files.judge is None else files.judge.max_tokens
    info = EncoderInfo(
        dimensions=0,
        max_tokens=_max_tokens(loaded, export.max_tokens, limit),
        labels=(str(loaded.tokenizer.decode([judge.yes])),),
        activation=_named_activation(config, files.activation) or "sigmoid",
        pair_prompt=judge.prompt,
    )
    return EncoderSource(loaded, None, info, judge)


def _classifier(export: EncoderExport, loaded: LoadedModel, files: CrossEncoder) -> EncoderSource:
    config: Any = loaded.model.config
    labels = tuple(str(config.id2label[index]) for index in range(config.num_labels))
    ranks = export.task == "text-ranking"
    if ranks and len(labels) != 1:
        raise ExportError(
            f"A ranker gives one score for a query and a document, this model {len(labels)} "
            f'({", ".join(labels[:4])}). As "text-classification" it can be exported, but '
            f"/v1/classify takes single texts: of pairs, as for inference between two sentences, "
            f"nobody could ask it."
        )
    info = EncoderInfo(
        dimensions=0,
        max_tokens=_max_tokens(loaded, export.max_tokens, None),
        labels=labels,
        activation=_activation(config, files.activation, ranks=ranks),
    )
    return EncoderSource(loaded, None, info)


def _activation(config: Any, named: str | None, *, ranks: bool) -> Activation:
    """Returns sentence-transformers' activation, or the one that transformers' pipeline uses.

    A ranker's one score goes through a sigmoid for every problem type, as in CrossEncoder.
    """
    if activation := _named_activation(config, named):
        return activation
    if config.problem_type == "regression" and not ranks:
        return "none"
    if config.problem_type == "multi_label_classification" or config.num_labels == 1:
        return "sigmoid"
    return "softmax"


def _named_activation(config: Any, named: str | None) -> Activation | None:
    """Returns sentence-transformers' activation; `named`: of its newer versions, in another file.

    Raises ExportError for one that is not known.
    """
    section = getattr(config, "sentence_transformers", None) or {}
    older = getattr(config, "sbert_ce_default_activation_function", None)
    name = named or section.get("activation_fn") or older
    if name is None:
        return None
    activation = _ACTIVATIONS.get(str(name).rpartition(".")[2].rstrip("()"))
    if activation is None or not str(name).startswith("torch."):
        raise ExportError(
            f"The model's files make scores by {name}; known are torch's {', '.join(_ACTIVATIONS)}."
        )
    return activation


def _max_tokens(loaded: LoadedModel, in_recipe: int | None, in_files: int | None) -> int:
    """Returns the recipe's limit, or sentence-transformers' (`in_files`), or the tokenizer's.

    No limit may be above the positions that the model has.
    """
    from transformers.tokenization_utils_base import LARGE_INTEGER

    positions = _positions(loaded)
    stated = loaded.tokenizer.model_max_length if in_files is None else in_files
    limit = stated if positions is None else min(positions, stated)
    # transformers' value for a tokenizer that does not say.
    if in_recipe is None and limit >= LARGE_INTEGER:
        raise ExportError(
            "Neither the model nor its tokenizer says how long a text may be: name it in [export] "
            "max_tokens."
        )
    if in_recipe is None:
        return int(limit)
    if positions is not None and in_recipe > positions:
        raise ExportError(
            f"[export] max_tokens is {in_recipe}, but {type(loaded.model).__name__} has positions "
            f"for {positions}."
        )
    return in_recipe


def _positions(loaded: LoadedModel) -> int | None:
    """Counts positions. A table of learned ones begins after its padding: RoBERTa's 514 are 512."""
    limit = getattr(loaded.model.config, "max_position_embeddings", None)
    for name, module in loaded.model.named_modules():
        table = getattr(module, "num_embeddings", None)
        if name.endswith("position_embeddings") and table is not None:
            padding = getattr(module, "padding_idx", None)
            return int(table) - (0 if padding is None else int(padding) + 1)
    return None if limit is None or limit < 0 else int(limit)
