"""POST /v1/classify, as vLLM defines it.

https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html#classification-api
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from handlers.api.encoding import fields
from handlers.api.encoding.fields import (
    EncodingCall,
    encode,
    new_id,
    read_inputs,
    timing,
    usage_body,
)
from handlers.api.http import TokenUsage, json_response
from handlers.api.parsing import PromptInput, read_json
from handlers.api.unsupported_fields import UnsupportedFields
from handlers.encoder.encoder import apply_activation

if TYPE_CHECKING:
    from handlers.api.http import Request, Response
    from handlers.api.model import EncoderModel


UNSUPPORTED: UnsupportedFields = (
    fields.UNSUPPORTED
    | fields.OF_CHATS
    | {
        "activation": ("true",),  # vLLM's older names of use_activation
        "softmax": ("true",),
        "raw_scores": ("false",),  # TEI's
    }
)


class ClassifyCall(EncodingCall, frozen=True, kw_only=True):
    """The body."""

    unsupported: ClassVar[UnsupportedFields] = UNSUPPORTED
    input: PromptInput
    use_activation: bool | None = None
    """vLLM's: false gives the logits themselves."""


async def create(model: EncoderModel, request: Request) -> Response:
    """The likeliest label of each input, and how likely each label is."""
    body = read_json(request.body, ClassifyCall)
    inputs = await model.tokenising.run(lambda: read_inputs(model, body, body.input))
    logits, usage = await encode(model, inputs, request)
    activation = "none" if body.use_activation is False else model.info.activation
    scores = apply_activation(logits, activation).tolist()
    labels = model.info.labels
    data = [
        {
            "index": index,
            "label": labels[int(logits[index].argmax())],
            "probs": probs,
            "num_classes": len(labels),
        }
        for index, probs in enumerate(scores)
    ]
    return json_response(
        {
            "id": new_id("classify"),
            "object": "list",
            "created": int(time.time()),
            "model": model.id,
            "data": data,
            "labels": labels,
            "usage": usage_body(usage),
        },
        timing(usage),
        TokenUsage(usage.tokens),
    )
