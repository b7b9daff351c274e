"""The tasks of encoders, and what their tiny models say of themselves. Without torch."""

from __future__ import annotations

from handlers.artifact.manifest import EncoderInfo, Task

ENCODER_TASKS: tuple[Task, ...] = ("feature-extraction", "text-classification", "text-ranking")
MAX_TOKENS = 128
INFOS: dict[Task, EncoderInfo] = {
    "feature-extraction": EncoderInfo(
        dimensions=64, max_tokens=MAX_TOKENS, prompts={"query": "query: ", "document": "text: "}
    ),
    "text-classification": EncoderInfo(
        dimensions=0, max_tokens=MAX_TOKENS, labels=("sad", "plain", "glad"), activation="softmax"
    ),
    "text-ranking": EncoderInfo(
        dimensions=0, max_tokens=MAX_TOKENS, labels=("LABEL_0",), activation="sigmoid"
    ),
}
