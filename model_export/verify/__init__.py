"""The four gates between an exported graph and an artefact.

1. tokens.py    the runtime's tokenizer and chat template give transformers' ids on the corpus
2. greedy.py    the fp32 graph answers every prompt of the corpus as transformers does, alone and
                in a batch
3. drift.py     the quantised graph stays within the recipe's limits of the fp32 graph
4. launch.py    all of this runs through `handlers.engine` in a process of its own, which never
                saw torch, and is written into the manifest

The pipeline calls `make_reference` while the source model is in memory, and `verify` later.
"""

from __future__ import annotations

from model_export.verify.launch import verify
from model_export.verify.reference import make_reference

__all__ = ["make_reference", "verify"]
