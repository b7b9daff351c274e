"""GET /v1/models and GET /v1/models/{id}: the one model of this process.

The answers are OpenAI's, with the members that Anthropic's clients read beside them.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from handlers.api.http import json_response
from handlers.api.routing import MODEL_PREFIX
from handlers.api.schemas import ResponseSchema
from handlers.errors import NotFound, quoted

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import ServedModel


RFC_3339 = "%Y-%m-%dT%H:%M:%SZ"


class ModelCard(ResponseSchema, frozen=True, kw_only=True):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    context_length: int
    type: Literal["model"]
    display_name: str
    created_at: str
    max_input_tokens: int

    @classmethod
    def of(cls, model: ServedModel) -> ModelCard:
        """Describes the model of the process."""
        return cls(
            id=model.id,
            object="model",
            created=model.manifest.created,
            owned_by="kindling",
            context_length=model.engine.context_length,
            type="model",
            display_name=model.id,
            created_at=datetime.fromtimestamp(model.manifest.created, UTC).strftime(RFC_3339),
            max_input_tokens=model.engine.context_length,
        )


class ModelList(ResponseSchema, frozen=True, kw_only=True):
    """A list of the one model."""

    object: Literal["list"]
    data: list[ModelCard]
    has_more: Literal[False]
    first_id: str
    last_id: str


async def list_all(model: ServedModel, _request: Request) -> Response:
    """Lists the one model, as OpenAI does."""
    return json_response(
        ModelList(
            object="list",
            data=[ModelCard.of(model)],
            has_more=False,
            first_id=model.id,
            last_id=model.id,
        )
    )


async def retrieve(model: ServedModel, request: Request) -> Response:
    """Describes the model. Raises NotFound for every other id."""
    model_id = request.path.removeprefix(MODEL_PREFIX)
    if model_id != model.id:
        raise NotFound(f"There is no model {quoted(model_id)} here: this server has {model.id!r}.")
    return json_response(ModelCard.of(model))
