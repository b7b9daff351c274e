"""A source's configuration alone, without its weights: one small file where it is on a hub.

Called by the dry run; the export loads whole models (load.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from model_export.errors import ExportError
from model_export.fetch.hub import download
from model_export.fetch.locate import packaged_path
from model_export.fetch.plain_weights import CONFIG, SMALL_FILES, refuse_packed
from model_export.fetch.reasons import UNREADABLE, reason_of
from model_export.progress import Report
from model_export.recipe import FolderSource, GgufSource, HubSource, Source

if TYPE_CHECKING:
    from transformers import PretrainedConfig


def fetch_config(source: Source, report: Report) -> PretrainedConfig:
    """Raises ExportError when it is not there, or when transformers does not know the model."""
    from transformers import AutoConfig

    path = _path(source, report)
    if path.is_dir():
        refuse_packed(path, source.hub if isinstance(source, HubSource) else str(path))
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    if path.is_file():
        options["gguf_file"] = path.name
        directory = path.parent
    elif (path / CONFIG).is_file():
        directory = path
    else:
        raise ExportError(
            f"{path} does not exist, or is a folder without {CONFIG}: name in [source] a folder as "
            f"save_pretrained writes it."
        )
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(directory, **options)
    except UNREADABLE as error:
        raise ExportError(
            f"transformers cannot read the model of {path}: {reason_of(error)}"
        ) from error
    return config


def _path(source: Source, report: Report) -> Path:
    """A folder with a config.json, or a GGUF file."""
    if isinstance(source, HubSource):
        return download(source.hub, source.revision, report, wanted=SMALL_FILES)
    if isinstance(source, FolderSource):
        return source.path
    if isinstance(source, GgufSource):
        return source.gguf
    return packaged_path(source)
