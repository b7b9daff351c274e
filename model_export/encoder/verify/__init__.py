"""The gates between an exported encoder and an artefact, as verify/ has them for a decoder.

1. gates.check_tokens  the runtime's tokenizer gives transformers' ids and segments, of texts and of
                       pairs, whole, cut to 32 tokens and to the longest that the model takes
2. gates.check_exact   the fp32 graph gives transformers' rows, alone and in a batch, and of a text
                       of the longest that the model takes, or of 1,024 tokens
3. drift.check_drift   the quantised graph stays within the recipe's limits of the fp32 graph
4. __main__.py         all of this runs through `handlers.encoder` in a process of its own, which
                       never saw torch, and is written into the manifest
"""

from __future__ import annotations

from model_export.encoder.verify.reference import make_reference

__all__ = ["make_reference"]
