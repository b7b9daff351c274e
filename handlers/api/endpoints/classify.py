"""POST /v1/classify, as vLLM defines it.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#classification-api
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, Literal

from handlers.api import encoder_request
from handlers.api.encoder_request import (
    EncoderRequest,
    EncoderUsage,
    encode,
    encoder_response,
    new_id,
    read_inputs,
)
from handlers.api.parsing import PromptInput, read_json
from handlers.api.schemas import ResponseSchema
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.encoder.encoder import apply_activation

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import EncoderModel

UNSUPPORTED: UnsupportedFields = (
    encoder_request.UNSUPPORTED
    | encoder_request.CHAT_ONLY
    | {
        "activation": ("true",),  # vLLM's older names of use_activation
        "softmax": ("true",),
        "raw_scores": ("false",),  # TEI's
    }
)


class ClassifyRequest(EncoderRequest, frozen=True, kw_only=True):
    """Inputs to classify."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    input: PromptInput
    use_activation: bool | None = None
    """vLLM's: false gives the logits themselves."""


class LabelScores(ResponseSchema, frozen=True, kw_only=True):
    """The scores of one input in the order of the labels, and its likeliest label."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class Classification(ResponseSchema, frozen=True, kw_only=True):
    """Scores for each input. `labels` names them."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[LabelScores]
    labels: tuple[str, ...]
    usage: EncoderUsage


async def create(model: EncoderModel, request: Request) -> Response:
    """Answers the likeliest label of each input, and how likely each label is."""
    body = read_json(request.body, ClassifyRequest)
    inputs = await model.tokenising.run(lambda: read_inputs(model, body, body.input))
    logits, stats = await encode(model, inputs, request)
    activation = "none" if body.use_activation is False else model.info.activation
    scores = apply_activation(logits, activation).tolist()
    labels = model.info.labels
    classification = Classification(
        id=new_id("classify"),
        object="list",
        created=int(time.time()),
        model=model.id,
        data=[
            LabelScores(
                index=index,
                label=labels[int(logits[index].argmax())],
                probs=probs,
                num_classes=len(labels),
            )
            for index, probs in enumerate(scores)
        ],
        labels=labels,
        usage=EncoderUsage.of(stats),
    )
    return encoder_response(classification, stats)
