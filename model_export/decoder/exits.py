"""Asks a model for its first choices after some of its layers, in one pass over the weights.

What a layer gives goes through the model's own last norm and head, as if the layers after it were
not there. So one pass tells of every number of own layers how well they would draft.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from model_export.decoder.cut import LayerList, cut_to_first
from model_export.decoder.logits import ROWS, filled_up, hidden_states
from model_export.fetch.stand_ins import real_weights
from model_export.reporting import Report

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    Choices = list[NDArray[np.int64]]
    """Of each window: the first choice after each of its ids."""


def choices_by_layers(
    model: PreTrainedModel,
    found: LayerList,
    windows: Sequence[Sequence[int]],
    counts: Sequence[int],
    report: Report,
) -> dict[int, Choices]:
    """Returns the first choices on `windows` with so many layers, for each of `counts`.

    The whole model's are those with all of its layers.
    """
    given: dict[int, Any] = {}
    with ExitStack() as undo, torch.no_grad():
        for count in counts:
            undo.enter_context(
                _recorded(found.layers[count - 1], partial(given.__setitem__, count))
            )
        hidden_states(model, found, filled_up(windows), report)
    lengths = [len(window) for window in windows]
    return {count: _choices(model, found, given.pop(count), lengths) for count in counts}


@contextmanager
def _recorded(layer: torch.nn.Module, keep: Any) -> Iterator[None]:
    """Keeps what a layer gives."""
    hook = layer.register_forward_hook(lambda _module, _inputs, result: keep(result))
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def _choices(
    model: PreTrainedModel, found: LayerList, given: Any, lengths: Sequence[int]
) -> Choices:
    states = given[0] if isinstance(given, tuple) else given
    hidden = torch.cat([states[row, :length] for row, length in enumerate(lengths)])
    with cut_to_first(model, found, 1), real_weights(model.get_output_embeddings()):
        parts = [_first(model, found.layers[0], rows, given) for rows in hidden.split(ROWS)]
    return np.split(np.concatenate(parts), np.cumsum(lengths)[:-1])


def _first(model: PreTrainedModel, layer: Any, rows: torch.Tensor, given: Any) -> NDArray[np.int64]:
    """Returns the choices after hidden states [rows, width], which stand in for the one layer's."""
    result = (rows[None], *given[1:]) if isinstance(given, tuple) else rows[None]
    layer.forward = lambda *_args, **_options: result
    try:
        ids = torch.zeros((1, len(rows)), dtype=torch.int64)
        found: NDArray[np.int64] = model(input_ids=ids, use_cache=False).logits[0].argmax(1).numpy()
        return found
    finally:
        del layer.forward
