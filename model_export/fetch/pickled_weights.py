"""Reads the tensors of files that torch.save wrote, by torch's safe loader, which runs no code.

Repositories from before safetensors have nothing other: pytorch_model.bin.
"""

from __future__ import annotations

import pickle
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model_export.reporting import ExportError
from model_export.weights import Floats

if TYPE_CHECKING:
    from torch import Tensor

PICKLED = "pytorch_model*.bin"
"""The names of such files. Others, as training_args.bin, hold no weights."""


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A tensor of torch, mostly one that is mapped from a file."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the tensor's axes."""
        return tuple(self.tensor.shape)

    @property
    def is_float(self) -> bool:
        """Returns whether the tensor holds floats."""
        return self.tensor.is_floating_point()

    def stored(self, start: int = 0, stop: int | None = None) -> NDArray[np.generic]:
        """Returns rows in their own type, which numpy must have."""
        rows: NDArray[np.generic] = self._rows(start, stop).numpy()
        return rows

    def read(self, start: int = 0, stop: int | None = None) -> Floats:
        """Returns rows as float32."""
        rows: Floats = self._rows(start, stop).float().numpy()
        return rows

    def _rows(self, start: int, stop: int | None) -> Tensor:
        return self.tensor[start:stop] if self.tensor.ndim else self.tensor


def open_pickled(path: Path) -> dict[str, PickledTensor]:
    """Returns a file's tensors by name. Raises ExportError for one that is not only tensors."""
    import torch

    try:
        # Files of torch before 1.6 are no archives, and cannot be mapped.
        found: Any = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError:
        raise ExportError(
            f"{path.name} is not loaded: it is broken, or holds more than tensors, and loading "
            f"that runs code. Save the model again with safe_serialization=True."
        ) from None
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        first = (str(error) or type(error).__name__).splitlines()[0]
        raise ExportError(f"{path.name} cannot be read: {first}. Download it again.") from None
    if not isinstance(found, dict) or not all(map(torch.is_tensor, found.values())):
        raise ExportError(
            f"{path.name} is no list of weights by name, as save_pretrained writes one."
        )
    return {str(name): PickledTensor(tensor.detach()) for name, tensor in found.items()}
