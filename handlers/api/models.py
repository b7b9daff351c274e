"""GET /v1/models and GET /v1/models/{id}: the one model of this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.api.http import json_response
from handlers.errors import NotFound, quoted

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import ServedModel

PATH = "/v1/models"


async def list_all(model: ServedModel, _request: Request) -> Response:
    """Lists the one model, as OpenAI does."""
    return json_response({"object": "list", "data": [_describe(model)]})


async def retrieve(model: ServedModel, request: Request) -> Response:
    """Describes the model. Raises NotFound for every id but the served one."""
    asked = request.path.removeprefix(f"{PATH}/")
    if asked != model.id:
        raise NotFound(f"There is no model {quoted(asked)} here: this server has {model.id!r}.")
    return json_response(_describe(model))


def _describe(model: ServedModel) -> dict[str, object]:
    return {
        "id": model.id,
        "object": "model",
        "created": model.manifest.created,
        "owned_by": "kindling",
        "context_length": model.engine.context_length,
    }
