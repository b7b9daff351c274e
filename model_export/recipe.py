"""The recipe of an export, as plain data; recipe_loader.py reads it from a TOML file.

    [model]
    id = "SmolLM2-135M-Instruct"      # the name that clients see
    licence = "Apache-2.0"            # SPDX; one that SPDX does not list: LicenseRef-Name

    [source]                          # exactly one of hub, path, gguf, package
    hub = "HuggingFaceTB/SmolLM2-135M-Instruct"
    revision = "<40 hexadecimal digits>"  # may be left out: main's, as every export then says

    [precision]                       # the fields of Precision; a decoder's may be left out
    [export]                          # of a decoder:
    task = "text-generation"          # the default
    context_length = 8192             # the longest sequence, prompt and answer together
    transformers = 5                  # for a model that transformers 4 does not have

    [tolerance]                       # how far a quantised decoder may drift: docs/precision.md
    [prefix]                          # may be left out
    system_prompt = "You are ..."     # whose keys and values are baked in: docs/engine.md

    [calibration]                     # may be left out
    text = "what-it-reads.txt"        # UTF-8, in the shipped text's place: docs/precision.md

    [draft]                           # may be left out; exactly one of these: docs/engine.md
    recipe = "smollm2-135m"           # a smaller model of the same tokenizer that guesses ids
    layers = 12                       # or as many of the model's own first layers
    min_gain = 1.05                   # may be left out: the least predicted speed that is kept

An encoder has other keys in two of these tables, and none of [prefix], [calibration], [draft]:

    [export]
    task = "feature-extraction"       # or "text-classification", "text-ranking"
    max_tokens = 256                  # may be left out: as the model says
    pooling = "cls"                   # these two only for a model without modules.json,
    normalize = true                  # sentence-transformers' own word on them

    [export.judge]                    # of a language model that ranks by saying yes or no
    yes = "yes"                       # words of one token; the score is the logit of yes less
    no = "no"                         # that of no, which may be left out
    template = "... {instruction} ... {query} ... {document} ..."
    instruction = "Given a web search query, ..."  # where a request names none

    [tolerance]                       # of "feature-extraction"
    min_mean_cosine = 0.999           # of the quantised embeddings to the fp32 ones
    min_cosine = 0.995

    [tolerance]                       # of the other two tasks
    min_top1_agreement = 0.98         # the same label, or the same best document of a query
    max_score_difference = 0.05       # of scores, as clients see them

Paths in a recipe are relative to the recipe's own directory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from model_export.reporting import ExportError

BITS = {
    "compact4": 4,
    "int4": 4,
    "compact5": 5,
    "int5": 5,
    "compact6": 6,
    "int6": 6,
    "int8": 8,
}
"""Bits of a quantised weight, in the order of the bytes that it takes with affine blocks."""
COMPACT = ("compact4", "compact5", "compact6")
"""Weights whose scales and offsets take a byte each instead of two."""
POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len", "weighted_mean", "last_token")

EncoderTask = Literal["feature-extraction", "text-classification", "text-ranking"]


class ModelTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[model]: what the artefact is called, and the SPDX id of the weights' licence."""

    id: str
    licence: str


class HubSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[source]: a repository of a Hugging Face hub at one commit."""

    hub: str
    revision: str | None = None
    """None: the commit that main is at, which the export reports and the manifest records."""


class FolderSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[source]: a folder as `save_pretrained` writes it."""

    path: Path


class GgufSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[source]: a GGUF file."""

    gguf: Path


class PackageSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[source]: a GGUF file, or a folder, inside an installed Python package."""

    package: str
    version: str
    file: str | None = None
    folder: str | None = None


Source = HubSource | FolderSource | GgufSource | PackageSource


@dataclass(frozen=True, slots=True)
class Precision:
    """[precision]: how the weights are stored. Raises ExportError for what cannot be.

    weights       of the linear layers: "fp32", "int4", "int5", "int6", "int8"; "compact4",
                  "compact5", "compact6", half a bit smaller; or "auto", of a decoder, and its
                  default: more bits than compact4 for as few matrices as keep the limits of
                  [tolerance]. An encoder's default is "int4"
    max_mb        of "auto": more bits for as many as fit, so that the file of weights is no larger
    block_size    weights that share a scale, along the input: a power of two from 32 to 256
    algorithm     of the int4 blocks: "affine", from the smallest to the largest weight, the grid of
                  GGUF's Q4_1; "k_quant", the same by llama.cpp's search, on a coarser grid;
                  "symmetric", around zero, a tenth smaller. int5 and int6 are always affine,
                  and int8 symmetric, as Q8_0
    lm_head       of the output projection, and of the embedding; "" is as the others
    mixed_layers  int8 for the most sensitive int4 layers (llama.cpp's choice, see quantize/)
    """

    weights: str = "auto"
    block_size: int = 32
    algorithm: str = "affine"
    lm_head: str = ""
    mixed_layers: bool = False
    max_mb: float | None = None

    def __post_init__(self) -> None:
        _check_choice("weights", self.weights, ("fp32", *BITS, "auto"))
        _check_choice("algorithm", self.algorithm, ("affine", "k_quant", "symmetric"))
        _check_choice("lm_head", self.lm_head, ("", "fp32", *BITS))
        _check_choice("block_size", self.block_size, (32, 64, 128, 256))
        if self.weights == "fp32" and (self.lm_head not in ("", "fp32") or self.mixed_layers):
            raise ExportError(
                'weights = "fp32" quantises nothing: leave out lm_head and mixed_layers, or set '
                "other weights."
            )
        if self.mixed_layers and self.weights != "int4":
            raise ExportError('mixed_layers gives int8 to some of the int4 layers: use "int4".')
        if self.max_mb is not None and self.weights != "auto":
            raise ExportError('max_mb is a limit of weights = "auto": use that, or leave it out.')
        if self.max_mb is not None and not self.max_mb > 0:
            raise ExportError("max_mb must be above 0: it is a size in MB.")

    @property
    def is_searched(self) -> bool:
        """Tells whether the export measures precisions to choose one."""
        return self.weights == "auto" and self.max_mb is None

    @property
    def is_calibrated(self) -> bool:
        """Tells whether the export measures what linear layers read of a calibration text.

        Affine blocks are chosen by it, and "auto" orders the matrices by it.
        """
        affine = {"auto", "int5", "int6", *COMPACT}
        affine |= {"int4"} if self.algorithm == "affine" else set()
        return not affine.isdisjoint((self.weights, self.head))

    @property
    def choices(self) -> tuple[str, ...]:
        """The weights that "auto" chooses among, the smallest first.

        Without the compact ones where int4 is to have another algorithm than theirs.
        """
        return tuple(each for each in BITS if self.algorithm == "affine" or each not in COMPACT)

    def algorithm_of(self, weights: str) -> str:
        """Returns the algorithm that makes blocks of these weights."""
        return "compact" if weights in COMPACT else self.algorithm

    @property
    def head(self) -> str:
        """The output projection's weights; of "auto" the largest that it may have."""
        return self.lm_head or ("int8" if self.weights == "auto" else self.weights)

    def searched(self) -> Precision:
        """Returns "auto" without a budget, with the blocks and the key lm_head of this one."""
        head = "" if self.weights == "fp32" else self.lm_head
        return replace(self, weights="auto", lm_head=head, mixed_layers=False, max_mb=None)

    def all_in(self, weights: str) -> Precision:
        """Returns this precision with one kind of weights wherever "auto" chooses."""
        return replace(self, weights=weights, max_mb=None)

    def describe(self, plan: str = "") -> str:
        """Returns words for a manifest or a log: "int4 k_quant block 32, int8 lm_head".

        `plan`: how many matrices "auto" has given which weights, "199 int4, 12 int8".
        """
        if self.weights == "fp32":
            return "fp32"
        if self.weights == "auto":
            budget = "" if self.max_mb is None else f"at most {self.max_mb:g} MB"
            head = self.lm_head and f"{self.lm_head} lm_head"
            blocks = f"auto: {self.algorithm} block {self.block_size}"
            return ", ".join(words for words in (blocks, budget, plan, head) if words)
        algorithm = f" {self.algorithm}" if self.weights == "int4" else ""
        words = f"{self.weights}{algorithm} block {self.block_size}"
        words += f", {self.head} lm_head" if self.head != self.weights else ""
        return words + (", int8 mixed layers" if self.mixed_layers else "")


class ExportTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[export]: the keys that decoders and encoders share."""

    transformers: Literal[5] | None = None
    """The major version of transformers that it takes. None: either, and the images take 4."""


class DecoderExport(ExportTable, frozen=True):
    """[export] of a decoder."""

    context_length: int
    """The longest sequence, in tokens, that the graph's positions allow."""
    task: Literal["text-generation"] = "text-generation"


class JudgeTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[export.judge]: a language model that ranks by its next token, and the prompt it reads."""

    yes: str
    no: str | None = None
    template: str
    """The whole prompt, special tokens included; docs/encoder.md."""
    instruction: str | None = None


class EncoderExport(ExportTable, frozen=True):
    """[export] of an encoder."""

    task: EncoderTask
    max_tokens: int | None = None
    pooling: str | None = None
    """One of POOLING_MODES."""
    normalize: bool | None = None
    judge: JudgeTable | None = None


class DecoderTolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[tolerance]: how far the quantised graph may drift from the fp32 one on the shipped text."""

    max_kl: float
    """Mean Kullback-Leibler divergence a token, in nats."""
    min_top1_agreement: float
    """Share of positions at which both graphs put the same token first."""
    max_perplexity_ratio: float
    """Perplexity of the quantised graph over that of the model in fp32."""


class EmbeddingTolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """[tolerance] of embeddings: the quantised graph's cosine to the fp32 graph's."""

    min_mean_cosine: float
    min_cosine: float


class ScoreTolerance(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag=True):
    """[tolerance] of a classifier or a ranker."""

    min_top1_agreement: float
    """Share of texts with the same best label, or of queries with the same best document."""
    max_score_difference: float


class PrefixTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[prefix]: the system message whose keys and values are computed by the export."""

    system_prompt: str


class CalibrationTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[calibration]: a text like those that the model will read. The loader has read its file."""

    text: str


MIN_DRAFT_GAIN = 1.05
"""Below it nobody sees the gain, and the prediction itself may be wrong by as much: a draft that is
kept takes memory, and time at start."""


class DraftTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[draft]: the model that guesses the next ids. Exactly one of the first two is set."""

    recipe: str | None = None
    """The name of a shipped recipe, or the path of a file."""
    layers: Annotated[int, msgspec.Meta(ge=1)] | None = None
    min_gain: Annotated[float, msgspec.Meta(ge=0, le=8)] = MIN_DRAFT_GAIN
    """The predicted speed over that without drafts, below which the export refuses it."""


class Recipe(msgspec.Struct, frozen=True):
    """A checked recipe. `name` is its file's stem."""

    name: str
    model: ModelTable
    source: Source
    precision: Precision
    export: ExportTable


class DecoderRecipe(Recipe, frozen=True):
    """A checked recipe of a model that generates text."""

    export: DecoderExport
    tolerance: DecoderTolerance
    prefix: PrefixTable | None = None
    calibration: CalibrationTable | None = None
    draft: DraftTable | None = None


class EncoderRecipe(Recipe, frozen=True):
    """A checked recipe of a model that embeds, classifies or ranks texts."""

    export: EncoderExport
    tolerance: EmbeddingTolerance | ScoreTolerance


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ExportError(f"{name} is {value!r}, but must be one of {known}.")
