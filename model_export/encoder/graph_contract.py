"""The names of the encoder graph's inputs and outputs (docs/graph.md has the table)."""

from __future__ import annotations

INPUT_IDS = "input_ids"
"""int64 [batch, sequence], each row right-padded."""
ATTENTION_MASK = "attention_mask"
"""int64 [batch, sequence]: 1 for a token, 0 for padding."""
TOKEN_TYPE_IDS = "token_type_ids"  # noqa: S105  (a name of transformers', no secret)
"""int64 [batch, sequence]: the segment of each token. Only where the model has segments."""
EMBEDDINGS = "embeddings"
"""float32 [batch, dimensions]."""
LOGITS = "logits"
"""float32 [batch, labels]."""

BATCH = "batch"
SEQUENCE = "sequence"
