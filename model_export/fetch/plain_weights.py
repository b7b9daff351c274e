"""Refuses what the export cannot read in place of plain weights, by the small files alone.

Quantised copies of a model are the hub's most loaded ones, and what a fine-tuning leaves is often
an adapter. transformers would need another library to load one, or would load something else.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

from model_export.fetch.packing import Packing, packing_of
from model_export.reporting import ExportError

CONFIG = "config.json"
ADAPTER = "adapter_config.json"
CARD = "README.md"
_OLDER = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
    "hf_quant_config.json": "ModelOpt",
}
"""Files of their own, which some quantisers write in the place of a key in config.json."""
SMALL_FILES = [CONFIG, ADAPTER, CARD, *_OLDER]
"""The files that this module reads."""

_KEYS = {
    "quantization_config": "unnamed",
    "compression_config": "compressed-tensors",
    "quantization": "MLX",
}
"""Keys of a config.json, or of a part of one, and the method where none is named."""
_NAMES = {
    "aqlm": "AQLM",
    "awq": "AWQ",
    "bitnet": "BitNet",
    "bitsandbytes": "bitsandbytes",
    "fbgemm_fp8": "FP8",
    "fp8": "FP8",
    "gptq": "GPTQ",
    "hqq": "HQQ",
    "modelopt": "ModelOpt",
    "mxfp4": "MXFP4",
}
_LARGEST_HEAD = 100_000_000
"""Bytes: safetensors' own limit."""
_BASE = re.compile(r"^base_model:\s*(?:\n\s*-\s*)?[\"']?([\w.-]+/[\w.-]+)", re.MULTILINE)


def refuse_packed(directory: Path, description: str) -> None:
    """Raises ExportError for quantised weights, but those that fit, and for an adapter."""
    if (directory / ADAPTER).is_file():
        raise ExportError(_of_adapter(directory, description))
    packing = packing_of(_read(directory / CONFIG))
    if isinstance(packing, Packing):
        return
    kind = _quantised_by(directory)
    if kind is None:
        return
    base = _base_of(directory)
    which = f", {base}," if base else ", the base model that its page names,"
    why = "and the export quantises plain ones itself"
    if packing is not None:
        why = (
            f"and {packing}: of {kind} the export takes over 4 bits in groups of 32 or a multiple, "
            f"without act-order"
        )
    raise ExportError(
        f"{description} has weights that are already quantised ({kind}), {why}: name in [source] "
        f"the repository of the plain weights{which} or save a dequantised copy with transformers "
        f"and name its folder."
    )


def _of_adapter(directory: Path, description: str) -> str:
    base = _read(directory / ADAPTER).get("base_model_name_or_path") or "its base model"
    return (
        f"{description} has an adapter ({ADAPTER}) to {base}, and the export reads whole models: "
        f"merge it with peft (AutoPeftModelForCausalLM.from_pretrained(...).merge_and_unload()"
        f".save_pretrained(FOLDER)), save the tokenizer there too, and name that folder in "
        f"[source] as path; or export {base} without it."
    )


def _quantised_by(directory: Path) -> str | None:
    """Names the method of quantisation; None for plain weights."""
    config = _read(directory / CONFIG)
    parts = [config, *(part for part in config.values() if isinstance(part, dict))]
    for part in parts:
        for key, unnamed in _KEYS.items():
            found = part.get(key)
            if found:
                named = found.get("quant_method") if isinstance(found, dict) else None
                method = str(named or unnamed)
                return _NAMES.get(method, method)
    older = next((kind for name, kind in _OLDER.items() if (directory / name).is_file()), None)
    return older or next(filter(None, map(_packed_in, directory.glob("*.safetensors"))), None)


def _packed_in(weights: Path) -> str | None:
    """Finds a type that no plain weight has, in the head of the file.

    transformers would take 8-bit numbers for the weights themselves, without their scales.
    """
    with weights.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        head = file.read(min(size, _LARGEST_HEAD))
    try:
        tensors = msgspec.json.decode(head, type=dict[str, dict[str, Any]])
    except msgspec.DecodeError:
        return None  # loading it will fail with a reason
    types = (_packed(name, str(one.get("dtype"))) for name, one in tensors.items())
    return next(filter(None, types), None)


def _packed(name: str, dtype: str) -> str | None:
    """Describes a packed type. Integers are no weights, but buffers of some models: positions."""
    is_weight = name.endswith(("weight", "weight_packed"))
    packed = dtype.startswith(("F8", "F6", "F4")) or (is_weight and dtype.startswith(("I", "U")))
    return f"{name} is {dtype}" if packed else None


def _base_of(directory: Path) -> str | None:
    """Reads the base model's name from the head of a model's page."""
    try:
        found = _BASE.search((directory / CARD).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found and found[1]


def _read(path: Path) -> dict[str, Any]:
    """Returns {} for what cannot be read: loading the model will fail with a reason."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return {}
