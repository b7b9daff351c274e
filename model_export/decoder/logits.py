"""Computes a model's logits on windows of text, with one layer's weights in memory at a time.

transformers' own forward runs once over all windows together. Hooks fill the stand-ins of a layer
(fetch/stand_ins.py) before it runs and drop them after it, so each weight is read once. The logits
go to a file: 1,700 rows of 128,256 float32 are 0.9 GB. Windows of a calibration text go along, of
which the inputs of linear layers are measured (calibration.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel

from model_export.decoder.calibration import InputSquares
from model_export.decoder.cut import LayerList, layers_of, without_layers
from model_export.fetch.stand_ins import real_weights, weight_of
from model_export.reporting import ExportError, Progress, Report

ROWS = 256
"""Positions whose logits are computed at once: 131 MB for 128,256 entries of a vocabulary."""


def record_logits(
    model: PreTrainedModel,
    windows: Sequence[Sequence[int]],
    path: Path,
    report: Report,
    inputs: InputSquares | None = None,
) -> None:
    """Writes float32 [positions, vocabulary] of all windows, one after the other, to `path`.

    `inputs` measures its own windows in the same pass. A model that does not divide is filled
    whole, and reads a window at a time.
    """
    found, inputs = layers_of(model), inputs or InputSquares([])
    parts = (
        _whole(model, windows, inputs, report)
        if found is None
        else _by_layers(model, found, windows, inputs, report)
    )
    with torch.no_grad(), path.open("wb") as file:
        for logits in parts:
            file.write(logits.float().contiguous().numpy().data)


def _whole(
    model: PreTrainedModel,
    windows: Sequence[Sequence[int]],
    inputs: InputSquares,
    report: Report,
) -> Iterator[torch.Tensor]:
    progress = _progress(report, len(windows) + len(inputs.windows), "windows")
    with real_weights(model):
        for window in windows:
            # With a cache: Gemma 3n of transformers 4 answers otherwise without one.
            yield model(input_ids=torch.tensor([window])).logits[0]
            progress.add(1)
        for window in inputs.windows:
            with inputs.measured(model, [len(window)], len(window)):
                model(input_ids=torch.tensor([window]))
            progress.add(1)


def _progress(report: Report, total: int, units: str) -> Progress:
    return Progress(report, total, lambda done: f"{done} of {total} {units}")


def _by_layers(
    model: PreTrainedModel,
    found: LayerList,
    windows: Sequence[Sequence[int]],
    inputs: InputSquares,
    report: Report,
) -> Iterator[torch.Tensor]:
    ids = filled_up([*windows, *inputs.windows])
    measured = [0] * len(windows) + [len(window) for window in inputs.windows]
    with inputs.measured(model, measured, ids.shape[1]):
        states = hidden_states(model, found, ids, report)
    hidden = torch.cat([states[row, : len(window)] for row, window in enumerate(windows)])
    del states
    with without_layers(model, found), real_weights(model.get_output_embeddings()):
        yield from _logits(model, hidden)


def filled_up(windows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Returns ids [windows, longest], after short windows zeros.

    A causal model's answers do not depend on what follows.
    """
    length = max(map(len, windows))
    return torch.tensor([[*window, *[0] * (length - len(window))] for window in windows])


def hidden_states(
    model: PreTrainedModel, found: LayerList, ids: torch.Tensor, report: Report
) -> torch.Tensor:
    """Returns what the output projection reads, [windows, positions, hidden]."""
    hook = model.get_output_embeddings().register_forward_pre_hook(_stop)
    try:
        with _weights_when_used(model, found, report):
            model(input_ids=ids, use_cache=False)
    except _Reached as reached:
        return reached.states
    finally:
        hook.remove()
    raise ExportError(f"{type(model).__name__} never reaches its output projection.")


class _Reached(Exception):
    """Ends a forward before the output projection: all logits at once would be gigabytes."""

    def __init__(self, states: torch.Tensor) -> None:
        super().__init__()
        self.states = states


def _stop(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
    raise _Reached(inputs[0])


def _logits(model: PreTrainedModel, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields logits [rows, vocabulary] of hidden states [positions, hidden], some rows at a time.

    By the model's own forward without its layers, since some models scale or cap their logits.
    """
    output = model.get_output_embeddings()
    for rows in hidden.split(ROWS):
        hook = output.register_forward_pre_hook(partial(_give, rows[None]))
        try:
            ids = torch.zeros((1, len(rows)), dtype=torch.int64)
            yield model(input_ids=ids, use_cache=False).logits[0]
        finally:
            hook.remove()


def _give(states: torch.Tensor, *_: object) -> tuple[torch.Tensor]:
    """Stands in for what the layers would give to the output projection."""
    return (states,)


@contextmanager
def _weights_when_used(model: PreTrainedModel, found: LayerList, report: Report) -> Iterator[None]:
    """Gives each layer, and each module outside of them, its weights while it computes."""
    layers = list(found.layers)
    progress = _progress(report, len(layers), "layers")
    inside = {part for layer in layers for part in layer.modules()}
    inside.add(model.get_output_embeddings())  # it is not reached
    others = [part for part in model.modules() if part not in inside and _owns_stand_ins(part)]
    with ExitStack() as undo:
        for layer in layers:
            _fill_when_used(layer, undo, partial(progress.add, 1))
        for part in others:
            _fill_when_used(part, undo, lambda: None)
        yield


def _owns_stand_ins(part: torch.nn.Module) -> bool:
    return any(weight_of(own) is not None for own in part.parameters(recurse=False))


def _fill_when_used(part: torch.nn.Module, undo: ExitStack, done: Callable[[], None]) -> None:
    filled: list[AbstractContextManager[None]] = []

    def before(*_: object) -> None:
        filled.append(real_weights(part))
        filled[-1].__enter__()

    def after(*_: object) -> None:
        filled.pop().__exit__(None, None, None)
        done()

    undo.callback(part.register_forward_pre_hook(before).remove)
    undo.callback(part.register_forward_hook(after, always_call=True).remove)
