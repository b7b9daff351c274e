"""From a recipe's source to a model in memory: locate the files, then load them.

Called by the pipeline. It knows nothing of ONNX.
"""

from __future__ import annotations

from model_export.fetch.load import (
    CLASSIFIER,
    DECODER,
    TRANSFORMER,
    Kind,
    LoadedModel,
    load,
)
from model_export.fetch.locate import Located, locate
from model_export.progress import Report
from model_export.recipe import Source

__all__ = [
    "CLASSIFIER",
    "DECODER",
    "TRANSFORMER",
    "Kind",
    "LoadedModel",
    "Located",
    "fetch",
    "load",
    "locate",
]


def fetch(source: Source, report: Report) -> LoadedModel:
    """Downloads what is not on disk, then loads the model in fp32. Raises ExportError."""
    located = locate(source, report)
    report(f"load {located.description} in fp32")
    return load(located)
