"""An encoder of transformers becomes an ONNX graph in the encoder's graph contract.

architecture.py says which inputs it has, and what must be patched before a trace. Pooling and all
behind it is traced with the model, so that no hidden state ever leaves the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import torch
from transformers import PreTrainedModel

from handlers.artifact import graph_contract as contract
from model_export.convert.trace import trace
from model_export.encoder.architecture import input_names, traceable
from model_export.encoder.head import Pooling
from model_export.errors import ExportError

if TYPE_CHECKING:
    from model_export.encoder.head import Head


class _Encoder(torch.nn.Module):
    """`forward` takes the contract's inputs and returns its output."""

    def __init__(self, model: PreTrainedModel, names: list[str], head: Head | None) -> None:
        super().__init__()
        self.model = model
        self.names = names
        self.head = head

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Embeddings [batch, dimensions] with a head, logits [batch, labels] without one."""
        named = dict(zip(self.names, inputs, strict=True))
        if self.head is None and self._scores_every_token():
            return self._score_of_the_last(named)
        outputs = self.model(**named)
        if self.head is None:
            logits: torch.Tensor = outputs["logits"]
            return logits
        embeddings: torch.Tensor = self.head(
            outputs["last_hidden_state"], named[contract.ATTENTION_MASK]
        )
        return embeddings

    def _scores_every_token(self) -> bool:
        """As decoders made into classifiers do."""
        return isinstance(getattr(self.model, "score", None), torch.nn.Linear)

    def _score_of_the_last(self, named: dict[str, torch.Tensor]) -> torch.Tensor:
        """Of the last token that is no padding, by the mask as well as by its id.

        transformers goes by the id alone, and takes no batch of a model that has none for padding;
        the runtime pads with 0, whatever the model's id is.
        """
        mask, pad = named[contract.ATTENTION_MASK], self.model.config.pad_token_id
        if pad is not None:
            mask = mask * (named[contract.INPUT_IDS] != pad)
        states = self.model.base_model(**named)["last_hidden_state"]
        last = Pooling(["last_token"])
        pooled: torch.Tensor = last(self.model.score(states), mask)  # type: ignore[operator]
        return pooled


def convert(model: PreTrainedModel, head: Head | None) -> ir.Model:
    """Trace `model` in float32: with `head` for embeddings, without for its logits.

    Raises ExportError, naming the architecture and the reason, for what cannot be expressed.
    """
    task = "text-classification" if head is None else "feature-extraction"
    encoder = _Encoder(model.float(), input_names(model, task), head).eval()
    try:
        with traceable(model, task):
            return _trace(encoder)
    # torch, transformers and optimum raise whatever they like where a model cannot be traced.
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ExportError(f"{type(model).__name__} cannot be traced: {reason[0]}") from error


def _trace(encoder: _Encoder) -> ir.Model:
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
    """Two rows: five tokens, and three of padding."""
    match name:
        case contract.ATTENTION_MASK:
            return torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
        case contract.TOKEN_TYPE_IDS:
            return torch.zeros((2, 5), dtype=torch.int64)
        case _:
            return torch.tensor([[5, 6, 7, 8, 9], [5, 6, 1, 1, 1]])
