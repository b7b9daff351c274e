"""Traces an encoder of transformers into an ONNX graph with the inputs and outputs of the contract.

Pooling and all that follows it is traced with the model, so that no hidden state ever leaves the
graph. optimum knows which architectures of transformers 4 can be exported, whether one has
segments, and which operations must be patched. transformers 5, which optimum does not know, needs
no other patch than ours.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

import onnx_ir as ir
import torch
from transformers import PreTrainedModel

from handlers.artifact import graph_contract as contract
from model_export.encoder.head import LogitDifference, Pooling
from model_export.reporting import ExportError
from model_export.trace import optimum
from model_export.trace.tracing import patch_unsupported_ops, trace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from model_export.encoder.head import Head
    from model_export.encoder.judge import Judge


class TraceableEncoder(torch.nn.Module):
    """An encoder and its head as a module that torch can trace."""

    def __init__(
        self, model: PreTrainedModel, names: list[str], head: Head | None, judges: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.head = head
        self.judges = judges

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Returns embeddings [batch, dimensions] with a head, logits [batch, labels] without."""
        named = dict(zip(self.names, inputs, strict=True))
        if self.judges:
            logits = self.model(**named, use_cache=False)["logits"]
            return self._last(logits, named[contract.ATTENTION_MASK])
        if self.head is None and self._scores_every_token():
            return self._score_of_the_last(named)
        outputs = self.model(**named)
        if self.head is None:
            scores: torch.Tensor = outputs["logits"]
            return scores
        embeddings: torch.Tensor = self.head(
            outputs["last_hidden_state"], named[contract.ATTENTION_MASK]
        )
        return embeddings

    def _scores_every_token(self) -> bool:
        """Tells whether it is a decoder made into a classifier."""
        return isinstance(getattr(self.model, "score", None), torch.nn.Linear)

    def _score_of_the_last(self, named: dict[str, torch.Tensor]) -> torch.Tensor:
        """Scores the last token that is no padding, by the mask as well as by its id.

        transformers goes by the id alone, and takes no batch of a model that has none for padding;
        the runtime pads with 0, not with the model's own id.
        """
        mask, pad = named[contract.ATTENTION_MASK], self.model.config.pad_token_id
        if pad is not None:
            mask = mask * (named[contract.INPUT_IDS] != pad)
        states = self.model.base_model(**named)["last_hidden_state"]
        return self._last(self.model.score(states), mask)  # type: ignore[operator]

    @staticmethod
    def _last(logits: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        pooled: torch.Tensor = Pooling(["last_token"])(logits, mask)
        return pooled


def convert(model: PreTrainedModel, head: Head | None, judge: Judge | None = None) -> ir.Model:
    """Traces `model` in float32: with `head` for embeddings, without for its logits.

    Of a language model, with `judge` for the one logit by which it ranks. Raises ExportError,
    naming the architecture and the reason, for what cannot be expressed.
    """
    task = "text-classification" if head is None else "feature-extraction"
    if judge is not None:
        task = "text-generation"
    names = _input_names(model, task)
    encoder = TraceableEncoder(model.float(), names, head, judge is not None).eval()
    try:
        with _one_logit(model, judge), _traceable(model, task):
            return _trace(encoder)
    # torch, transformers and optimum raise errors of any type where a model cannot be traced.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"{type(model).__name__} cannot be traced: {reason[0]}") from error


@contextmanager
def _one_logit(model: PreTrainedModel, judge: Judge | None) -> Iterator[None]:
    """Puts the difference of two rows in the place of the output projection inside the block.

    What the model does to its logits besides, such as a scale, is traced with it.
    """
    if judge is None:
        yield
        return
    projection: Any = model.get_output_embeddings()
    model.set_output_embeddings(LogitDifference(projection, judge.yes, judge.no))
    try:
        yield
    finally:
        model.set_output_embeddings(projection)


def _trace(encoder: TraceableEncoder) -> ir.Model:
    names, output = encoder.names, contract.LOGITS if encoder.head is None else contract.EMBEDDINGS
    examples = [_example(name) for name in names]
    with torch.no_grad():
        width = encoder(*examples).shape[-1]
    axes = {0: contract.BATCH, 1: contract.SEQUENCE}
    graph = trace(
        encoder,
        examples,
        inputs=names,
        outputs=[output],
        dynamic_axes={**dict.fromkeys(names, axes), output: {0: contract.BATCH}},
    )
    graph.graph.outputs[0].shape = ir.Shape([contract.BATCH, width])
    return graph


def _example(name: str) -> torch.Tensor:
    """Returns an example of two rows: five tokens, and two with three of padding."""
    match name:
        case contract.ATTENTION_MASK:
            return torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
        case contract.TOKEN_TYPE_IDS:
            return torch.zeros((2, 5), dtype=torch.int64)
        case _:
            return torch.tensor([[5, 6, 7, 8, 9], [5, 6, 1, 1, 1]])


_KNOWN = (contract.INPUT_IDS, contract.ATTENTION_MASK, contract.TOKEN_TYPE_IDS)
_DERIVED = ("position_ids",)
"""Inputs that optimum would give the graph and that a model also makes up itself."""


def _input_names(model: PreTrainedModel, task: str) -> list[str]:
    """Returns the inputs of the contract that the model takes. Raises ExportError."""
    if not optimum.is_installed():
        return _names_by_signature(model)
    wanted = _optimum_config(model, task).inputs
    unknown = set(wanted) - {*_KNOWN, *_DERIVED}
    if unknown or contract.INPUT_IDS not in wanted:
        raise ExportError(
            f"{type(model).__name__} wants {', '.join(wanted)}, but an encoder here reads "
            f"{', '.join(_KNOWN)} alone, so it cannot be exported."
        )
    return [name for name in _KNOWN if name in wanted]


def _traceable(model: PreTrainedModel, task: str) -> AbstractContextManager[object]:
    """Lets torch trace the model inside the block."""
    if not optimum.is_installed():
        return patch_unsupported_ops()
    patcher: AbstractContextManager[object] = _optimum_config(model, task).patch_model_for_export(
        model
    )
    return patcher


def _names_by_signature(model: PreTrainedModel) -> list[str]:
    taken = inspect.signature(model.forward).parameters
    if model.config.is_encoder_decoder or not set(_KNOWN[:2]) <= set(taken):
        raise ExportError(
            f"{type(model).__name__} ({model.config.model_type}) is not an encoder of texts alone, "
            f"so it cannot be exported as one."
        )
    # A model with one kind of segment has RoBERTa's parameter for it, and no use.
    segments = getattr(model.config, "type_vocab_size", 0) > 1
    return [name for name in _KNOWN if name in taken and (segments or name in _KNOWN[:2])]


def _optimum_config(model: PreTrainedModel, task: str) -> Any:
    """Returns optimum's OnnxConfig of the architecture. Raises ExportError where it has none."""
    config = optimum.onnx_config(model, task)
    if config is None:
        raise ExportError(
            f"{type(model).__name__} ({model.config.model_type}) is not an architecture that "
            f"optimum can export to ONNX for {task}."
        )
    return config
