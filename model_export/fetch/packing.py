"""Tells which quantised checkpoints the export takes over, by their config.json.

Our blocks hold scale * value + offset with 4 bits a value: what AWQ and GPTQ store, as long as
the values of a group are neighbours in a row, and a group is one or several of our blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_SMALLEST = 32
"""Values of our smallest block."""


@dataclass(frozen=True, slots=True)
class Packing:
    """How a checkpoint's matrices are packed."""

    method: str
    """ "awq" or "gptq"."""
    group_size: int
    """-1: a whole row."""
    zeros_less_one: bool = False
    """In the first format of GPTQ."""


def packing_of(config: Mapping[str, Any]) -> Packing | str | None:
    """Returns the packing of a checkpoint, or what the export cannot take over of it.

    `config` is its config.json. None where it is neither AWQ nor GPTQ.
    """
    settings = config.get("quantization_config")
    if not isinstance(settings, dict) or settings.get("quant_method") not in _METHODS:
        return None
    method = str(settings["quant_method"])
    bits = settings.get("bits", settings.get("w_bit"))
    size = settings.get("group_size", settings.get("q_group_size"))
    if bits != 4:
        return f"it has {bits} bits a value"
    if not isinstance(size, int) or size == 0 or (size != -1 and size % _SMALLEST) or size < -1:
        return f"its group_size is {size}"
    return _METHODS[method](settings, size)


def _gptq(settings: Mapping[str, Any], group_size: int) -> Packing | str:
    form = settings.get("checkpoint_format") or "gptq"
    if form not in ("gptq", "gptq_v2"):
        return f"its checkpoint_format is {form}"
    if settings.get("desc_act"):
        return "desc_act puts its inputs in another order (act-order)"
    if settings.get("dynamic"):
        return "its layers are quantised in different ways (dynamic)"
    return Packing("gptq", group_size, zeros_less_one=form == "gptq")


def _awq(settings: Mapping[str, Any], group_size: int) -> Packing | str:
    version = str(settings.get("version") or "gemm").lower()
    if version != "gemm":
        return f"its version is {version}"
    if not settings.get("zero_point", True):
        return "it has no zero_point"
    return Packing("awq", group_size)


_METHODS: dict[str, Callable[[Mapping[str, Any], int], Packing | str]] = {
    "awq": _awq,
    "gptq": _gptq,
}
