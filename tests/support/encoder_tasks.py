"""The tasks of encoders. Without torch, unlike the models that are made for them."""

from __future__ import annotations

from handlers.artifact.manifest import Task

ENCODER_TASKS: tuple[Task, ...] = ("feature-extraction", "text-classification", "text-ranking")
