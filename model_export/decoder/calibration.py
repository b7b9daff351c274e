"""Measures what each linear layer reads of a calibration text: the mean square of every input.

This is what llama.cpp calls an importance matrix: the quantiser weighs the rounding error of a
weight by the importance of its input. The calibration windows go through the layers together with
those of the evaluation (logits.py), so that each weight is read once, and their tokens alone count.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from model_export.fetch.stand_ins import weight_of
from model_export.reporting import ExportError
from model_export.verify.corpus import calibration
from model_export.verify.drift import windows_of
from model_export.verify.exchange import EncodedText
from model_export.weights import ArrayWeight, CalibratedWeight, Floats

if TYPE_CHECKING:
    from model_export.fetch.load import LoadedModel

CALIBRATION_TOKENS = 2048
"""Tokens of the calibration text that are read: about as many as the gates read."""
IMPORTANCE_BITS = 4
"""Bits of an importance's mantissa. A CPU with other instructions adds up in another order, and
differs by 1e-7 of a value, and by 8e-6 at most: of the demo's 149,760 one is rounded otherwise with
AVX2 than with AVX-512."""
_SAME_DAY = "{% macro strftime_now(pattern) %}01 Jan 2026{% endmacro %}"
"""Stands before the model's template: one that writes the date, as Llama 3's, would give other
weights on every day."""
_TOGETHER = 16
"""Tokens that are squared at once: of so few the squares stay in a core's cache, which makes it six
times faster."""


def calibration_windows(
    loaded: LoadedModel, context_length: int, own_text: str | None
) -> list[list[int]]:
    """Cuts the calibration text as the evaluation's is cut, and chooses windows evenly over it.

    They have CALIBRATION_TOKENS together. `own_text` takes the place of the text that is shipped.
    Raises ExportError where that has no two tokens.
    """
    text = shipped_text(loaded) if own_text is None else own_text
    windows = windows_of(EncodedText.of(text, loaded.tokenizer), context_length)
    if not windows:
        raise ExportError(
            "The text of [calibration] has fewer than two tokens: name a text of some thousand, or "
            "leave [calibration] out."
        )
    count = max(CALIBRATION_TOKENS // len(windows[0]), 1)
    step = max(len(windows) / count, 1)
    return [windows[int(number * step)] for number in range(min(count, len(windows)))]


def shipped_text(loaded: LoadedModel) -> str:
    """Joins texts and chats, these by the model's template.

    A chat that the template refuses is left out; without a template, chats are plain text.
    """
    parts = list(calibration().texts)
    for messages in (conversation.messages for conversation in calibration().chats):
        if loaded.chat_template is None:
            parts += [message["content"] for message in messages]
            continue
        try:
            parts.append(
                str(
                    loaded.tokenizer.apply_chat_template(
                        messages, chat_template=_SAME_DAY + loaded.chat_template, tokenize=False
                    )
                )
            )
        except jinja2.TemplateError:
            continue
    return "\n\n".join(parts)


class InputSquares:
    """Adds up the squares of what linear layers read, over the tokens of calibration windows."""

    def __init__(self, windows: Sequence[Sequence[int]]) -> None:
        self.windows = windows
        self._sums: dict[str, NDArray[np.float64]] = {}
        self._tokens: dict[str, int] = {}
        self._unknown: set[str] = set()

    @contextmanager
    def measured(self, model: PreTrainedModel, lengths: Sequence[int], size: int) -> Iterator[None]:
        """Measures all linear layers of `model` while the block runs one batch through it.

        `lengths`: how many tokens count in each row of the batch, from its first on; 0 in a row of
        another text. `size`: the tokens of a row, padding included.
        """
        with ExitStack() as undo:
            for name, linear in _linears(model):
                hook = partial(self._add, name, lengths, size)
                undo.callback(linear.register_forward_pre_hook(hook).remove)
            yield

    def _add(
        self,
        name: str,
        lengths: Sequence[int],
        size: int,
        _: torch.nn.Module,
        inputs: tuple[torch.Tensor, ...],
    ) -> None:
        read = _by_rows(inputs[0], len(lengths), size) if inputs else None
        if read is None:
            self._unknown.add(name)
            return
        for row, length in zip(read, lengths, strict=True):
            if length:
                tokens = row[:length].float().numpy().reshape(-1, row.shape[-1])
                self._sums[name] = self._sums.get(name, 0) + _sum_of_squares(tokens)
                self._tokens[name] = self._tokens.get(name, 0) + len(tokens)

    def importance(self) -> dict[str, Floats]:
        """Returns the mean squares by the layer's name.

        Without those that read some tokens alone, as experts do, and which these are is unknown.
        """
        means = {
            name: _rounded(total / self._tokens[name])
            for name, total in self._sums.items()
            if name not in self._unknown
        }
        return {name: mean for name, mean in means.items() if np.isfinite(mean).all()}

    def save(self, path: Path) -> None:
        """Writes the importance of all layers to `path`."""
        save_file(self.importance(), path)


def _linears(model: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Module]]:
    """Yields the linear layers; those that share a weight have the name of the first."""
    names: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, (torch.nn.Linear, Conv1D)):
            yield names.setdefault(id(module.weight), name), module


def _by_rows(read: torch.Tensor, rows: int, size: int) -> torch.Tensor | None:
    """Returns a view [rows, size, ...] of what a layer reads, None where it is not all tokens."""
    if read.shape[:2] == (rows, size):
        return read.detach()
    if read.ndim == 2 and len(read) == rows * size:
        return read.detach().view(rows, size, -1)
    return None


def _sum_of_squares(tokens: Floats) -> NDArray[np.float64]:
    """Adds up [tokens, inputs] on one thread, in float64, in which squares of float32 are exact."""
    total = np.zeros(tokens.shape[1])
    for start in range(0, len(tokens), _TOGETHER):
        wide = tokens[start : start + _TOGETHER].astype(np.float64)
        wide *= wide
        total += wide.sum(axis=0)
    return total


def _rounded(values: NDArray[np.float64]) -> Floats:
    mantissas, exponents = np.frexp(values)
    whole = np.rint(np.ldexp(mantissas, IMPORTANCE_BITS))
    rounded: NDArray[np.float64] = np.ldexp(whole, exponents - IMPORTANCE_BITS)
    return rounded.astype(np.float32)


def attach(model: PreTrainedModel, path: Path) -> None:
    """Gives the weights of `model` the importance of their inputs, which `save` wrote to `path`."""
    for name, importance in load_file(path).items():
        parameter: Any = model.get_submodule(name).weight
        weight = weight_of(parameter) or ArrayWeight(parameter.detach().float().numpy())
        parameter.weight = CalibratedWeight(weight, importance)
