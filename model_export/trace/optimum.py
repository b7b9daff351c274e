"""Asks optimum, where it is installed, how an architecture of transformers 4 is exported to ONNX.

optimum knows which operations of an architecture must be patched before a trace, and holds
transformers below 4.58. The extra `export-transformers5` is without it: transformers 5 needs no
other patch than ours.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from transformers import PreTrainedModel


def is_installed() -> bool:
    """Tells whether optimum is there to be asked."""
    return importlib.util.find_spec("optimum") is not None


def onnx_config(model: PreTrainedModel, task: str, **options: bool) -> Any | None:
    """Returns optimum's OnnxConfig of the architecture, None where it has none for the task.

    `options` are the config's own, such as use_past.
    """
    if not is_installed():
        return None
    import optimum.exporters.onnx.model_configs  # noqa: F401  (registers the architectures)
    from optimum.exporters.tasks import TasksManager

    kind = model.config.model_type
    if kind not in TasksManager.get_supported_model_type_for_task(task, "onnx"):
        return None
    constructor = TasksManager.get_exporter_config_constructor(
        "onnx", model_type=kind, task=task, library_name="transformers"
    )
    return constructor(model.config, **options)
