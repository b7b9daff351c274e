"""The tasks of encoders. Without torch, unlike the models that are made for them."""

from __future__ import annotations

from handlers.engine.artifact import Task

ENCODER_TASKS: tuple[Task, ...] = ("feature-extraction", "text-classification", "text-ranking")
