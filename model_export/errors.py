"""The exporter's branch of the error tree (handlers/errors.py draws the rest)."""

from __future__ import annotations

from handlers.errors import KindlingError


class ExportError(KindlingError):
    """The model cannot be exported as asked. The message says what to change."""
