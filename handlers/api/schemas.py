"""The base of the structs that answers are built from, and the body of every error.

The OpenAPI document describes the answers by the same structs.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec


class ResponseSchema(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON object of an answer: it has these members and no others, and leaves UNSET ones out."""

    parts: ClassVar[tuple[type[msgspec.Struct], ...]] = ()
    """The structs that its schema refers to by their names alone."""


class ErrorDetail(ResponseSchema, frozen=True, kw_only=True):
    """`param` names the field at fault."""

    message: str
    type: str
    param: str | None
    code: str


class Error(ResponseSchema, frozen=True, kw_only=True):
    """Every error's body."""

    error: ErrorDetail
