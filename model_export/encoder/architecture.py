"""What an encoder needs before torch can trace it, with optimum or without.

optimum knows which architectures of transformers 4 can be exported, whether one has segments, and
which operations must be patched. transformers 5, which optimum does not know, needs no other patch
than ours. Called by convert.py; knows nothing of graphs.
"""

from __future__ import annotations

import importlib.util
import inspect
from contextlib import AbstractContextManager
from typing import Any

from transformers import PreTrainedModel

from handlers.artifact import graph_contract as contract
from model_export.convert.operations import writable_operations
from model_export.errors import ExportError

_KNOWN = (contract.INPUT_IDS, contract.ATTENTION_MASK, contract.TOKEN_TYPE_IDS)
_DERIVED = ("position_ids",)
"""Inputs that optimum would give the graph and that a model also makes up itself."""


def input_names(model: PreTrainedModel, task: str) -> list[str]:
    """Of the contract's, in its order. Raises ExportError for what is no encoder."""
    if importlib.util.find_spec("optimum") is None:
        return _names_by_signature(model)
    wanted = _optimum_config(model, task).inputs
    unknown = set(wanted) - {*_KNOWN, *_DERIVED}
    if unknown or contract.INPUT_IDS not in wanted:
        raise ExportError(
            f"{type(model).__name__} wants {', '.join(wanted)}, but an encoder here reads "
            f"{', '.join(_KNOWN)} alone, so it cannot be exported."
        )
    return [name for name in _KNOWN if name in wanted]


def traceable(model: PreTrainedModel, task: str) -> AbstractContextManager[object]:
    """While it lasts, torch can trace the model."""
    if importlib.util.find_spec("optimum") is None:
        return writable_operations()
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
    """optimum's OnnxConfig of the architecture."""
    import optimum.exporters.onnx.model_configs  # noqa: F401  (registers the architectures)
    from optimum.exporters.tasks import TasksManager

    kind = model.config.model_type
    if kind not in TasksManager.get_supported_model_type_for_task(task, "onnx"):
        raise ExportError(
            f"{type(model).__name__} ({kind}) is not an architecture that optimum can export to "
            f"ONNX for {task}."
        )
    constructor = TasksManager.get_exporter_config_constructor(
        "onnx", model_type=kind, task=task, library_name="transformers"
    )
    return constructor(model.config)
