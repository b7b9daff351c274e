"""Model families that can be exported only with transformers 5.

Their code in transformers 4 goes round its attention interface, hands it a mask that is no
function, loops over the experts that an example chose, or keeps a state in a cache of its own; in
transformers 5 it does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import transformers
from transformers import PreTrainedModel

from model_export.reporting import ExportError

SINCE_TRANSFORMERS_5 = frozenset(
    {
        "bamba",
        "biogpt",
        "codegen",
        "deepseek_v2",
        "deepseek_v3",
        "dots1",
        "ernie4_5_moe",
        "falcon_h1",
        "glm4_moe",
        "gptj",
        "granitemoe",
        "granitemoehybrid",
        "granitemoeshared",
        "lfm2",
        "mixtral",
        "nemotron",
        "olmoe",
        "opt",
        "persimmon",
        "phimoe",
        "qwen2_moe",
        "qwen3_next",
        "stablelm",
    }
)
"""tests/export/test_families.py holds it to the table of docs/families.md."""


@contextmanager
def pointing_to_transformers_5(model: PreTrainedModel) -> Iterator[None]:
    """Adds to a refusal inside the block that transformers 5 exports the family, where it does."""
    try:
        yield
    except ExportError as refusal:
        if model.config.model_type not in SINCE_TRANSFORMERS_5 or _major_version() > 4:
            raise
        raise ExportError(
            f"{refusal} With transformers 5 its family exports: see docs/families.md."
        ) from refusal


def _major_version() -> int:
    return int(transformers.__version__.partition(".")[0])
