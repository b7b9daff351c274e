"""What a recipe's [precision] table says: how many bits each weight gets, and how."""

from __future__ import annotations

from dataclasses import dataclass

from model_export.errors import ExportError

BITS = {"int4": 4, "int8": 8}


@dataclass(frozen=True, slots=True)
class Precision:
    """How the weights are stored. Raises ExportError for a value or combination that is not.

    weights       of the linear layers: "fp32", "int4" or "int8"
    block_size    weights that share a scale, along the input: a power of two from 32 to 256
    algorithm     of the int4 blocks: "affine", from the smallest to the largest weight, the grid of
                  GGUF's Q4_1; "k_quant", the same by llama.cpp's search, on a coarser grid;
                  "symmetric", around zero, a tenth smaller. int8 is always symmetric, as Q8_0
    lm_head       of the output projection, and of the embedding; "" is as the others
    mixed_layers  int8 for the most sensitive int4 layers (llama.cpp's choice, see quantize/)
    """

    weights: str = "int4"
    block_size: int = 32
    algorithm: str = "affine"
    lm_head: str = ""
    mixed_layers: bool = False

    def __post_init__(self) -> None:
        _check_choice("weights", self.weights, ("fp32", "int4", "int8"))
        _check_choice("algorithm", self.algorithm, ("affine", "k_quant", "symmetric"))
        _check_choice("lm_head", self.lm_head, ("", "fp32", "int4", "int8"))
        _check_choice("block_size", self.block_size, (32, 64, 128, 256))
        if self.weights == "fp32" and (self.lm_head not in ("", "fp32") or self.mixed_layers):
            raise ExportError(
                'weights = "fp32" quantises nothing: leave out lm_head and mixed_layers, or set '
                'weights to "int4" or "int8".'
            )
        if self.mixed_layers and self.weights != "int4":
            raise ExportError('mixed_layers gives int8 to some of the int4 layers: use "int4".')

    @property
    def head(self) -> str:
        """The output projection's weights."""
        return self.lm_head or self.weights

    def describe(self) -> str:
        """In words for a manifest or a log: "int4 k_quant block 32, int8 lm_head"."""
        if self.weights == "fp32":
            return "fp32"
        algorithm = f" {self.algorithm}" if self.weights == "int4" else ""
        words = f"{self.weights}{algorithm} block {self.block_size}"
        words += f", {self.head} lm_head" if self.head != self.weights else ""
        return words + (", int8 mixed layers" if self.mixed_layers else "")


def _check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    if value not in choices:
        known = ", ".join(repr(choice) for choice in choices)
        raise ExportError(f"{name} is {value!r}, but must be one of {known}.")
