"""A field that holds a text, texts, ids, or lists of ids: OpenAI's `prompt` and `input`.

Called by the endpoints that have such a field.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from handlers.errors import InvalidRequest

# Ids are checked against the vocabulary by the engine, which knows it.
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]

_TEXT = {"type": "string", "minLength": 1}
_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
_LISTS = [{"type": "array", "items": items, "minItems": 1} for items in (_TEXT, _IDS)]

# `several` is stricter than the type can be, and says so in the OpenAPI document.
TextsOrIds = Annotated[
    str | list[str | TokenId | list[TokenId]],
    Meta(extra_json_schema={"allOf": [{"anyOf": [_TEXT, _IDS, *_LISTS]}]}),
]


def several(value: TextsOrIds, field: str) -> list[str | list[int]]:
    """What `field` holds, as a list of one kind. Raises InvalidRequest for a mixture."""
    if isinstance(value, str):
        return [value]
    ids = [part for part in value if isinstance(part, int)]
    parts = [part for part in value if not isinstance(part, int)]
    if (ids and parts) or len({type(part) for part in parts}) > 1:
        raise InvalidRequest(f"{field} mixes texts and ids: send one kind.", param=field)
    return parts or [ids]
