"""The routes of each task: what the server answers on which path, and what OpenAPI says of it.

Endpoints and structs stand here by their names, so that a process imports only those of its own
task: at start what most of its requests need, the others with their first request, and the structs
of answers for the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

from msgspec.structs import replace

from handlers.api.routing import MODEL_PATH, Operation, Route
from handlers.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    NotReady,
    Overloaded,
    RequestError,
    RequestTimeout,
    RequestTooLarge,
    UnsupportedMediaType,
)

if TYPE_CHECKING:
    from handlers.artifact.manifest import Task

Errors = tuple[type[RequestError], ...]

BODY_ERRORS: Errors = (InvalidRequest, RequestTimeout, RequestTooLarge, UnsupportedMediaType)
TOKENIZE_ERRORS: Errors = (*BODY_ERRORS, Overloaded, NotReady)
ENGINE_ERRORS: Errors = (*TOKENIZE_ERRORS, DeadlineExceeded)

HEALTH_PATHS = ("/healthz", "/health")
"""On Cloud Run Google answers /healthz itself, with 404, unless it is a probe that asks.
https://docs.cloud.google.com/run/docs/known-issues"""


def preload(task: Task) -> None:
    """Imports the endpoints that most requests of a task need."""
    for route in ROUTES[task].values():
        if route.preload:
            route.load()


def _get(
    endpoint: str,
    operation_id: str,
    summary: str,
    *,
    response: str | None = None,
    errors: Errors = (),
    preload: bool = False,
    needs_key: bool = True,
) -> Route:
    operation = Operation(
        method="GET", id=operation_id, summary=summary, response=response, errors=errors
    )
    return Route(endpoint, (operation,), preload, needs_key)


def _post(
    endpoint: str,
    operation_id: str,
    summary: str,
    *,
    request: str,
    response: str,
    event: str | None = None,
    errors: Errors = ENGINE_ERRORS,
    preload: bool = False,
) -> Route:
    operation = Operation(
        method="POST",
        id=operation_id,
        summary=summary,
        request=request,
        response=response,
        event=event,
        errors=errors,
    )
    return Route(endpoint, (operation,), preload)


def _generate(method: Literal["GET", "POST"], operation_id: str) -> Operation:
    return Operation(
        method=method,
        id=operation_id,
        summary="A prompt in, a response out. Greedy unless told otherwise.",
        request="endpoints.generate.GenerateRequest",
        response="endpoints.generate.Generated",
        errors=ENGINE_ERRORS,
    )


def _messages(
    endpoint: str,
    operation_id: str,
    summary: str,
    *,
    request: str,
    response: str,
    event: str | None = None,
    errors: Errors = ENGINE_ERRORS,
) -> Route:
    route = _post(
        endpoint,
        operation_id,
        summary,
        request=request,
        response=response,
        event=event,
        errors=errors,
    )
    error = "anthropic_errors.AnthropicError"
    return replace(route, operations=tuple(replace(op, error=error) for op in route.operations))


def _rerank(operation_id: str, *, preload: bool = False) -> Route:
    return _post(
        "endpoints.rerank.create",
        operation_id,
        "Puts documents in the order in which they answer a query.",
        request="endpoints.rerank.RerankRequest",
        response="endpoints.rerank.Ranking",
        preload=preload,
    )


DETOKENIZATION: Mapping[str, Route] = {
    "/detokenize": _post(
        "endpoints.tokenize.detokenize",
        "detokenize",
        "The text of ids.",
        request="endpoints.tokenize.DetokenizeRequest",
        response="endpoints.tokenize.DetokenizedText",
        errors=BODY_ERRORS,
    ),
    "/tokenizer_info": _get(
        "endpoints.tokenize.tokenizer_info",
        "describeTokenizer",
        "The special tokens, the chat template and the longest sequence of the model.",
        response="endpoints.tokenize.TokenizerInfo",
    ),
}

COMMON: Mapping[str, Route] = {
    "/v1/models": _get(
        "endpoints.models.list_all",
        "listModels",
        "The one model that is served, as a list.",
        response="endpoints.models.ModelList",
        preload=True,
    ),
    MODEL_PATH: _get(
        "endpoints.models.retrieve",
        "retrieveModel",
        "The model that is served, by its id.",
        response="endpoints.models.ModelCard",
        errors=(NotFound,),
        preload=True,
    ),
    "/openapi.json": _get("openapi.describe", "describeApi", "This document."),
    "/healthz": _get(
        "endpoints.health.check",
        "checkHealth",
        "What runs and how busy it is. Open also where a key is needed.",
        response="endpoints.health.Health",
        preload=True,
        needs_key=False,
    ),
    "/health": _get(
        "endpoints.health.check",
        "checkHealthOnCloudRun",
        "The same, where Google answers /healthz itself.",
        response="endpoints.health.Health",
        preload=True,
        needs_key=False,
    ),
    "/": _get(
        "endpoints.health.greet",
        "greet",
        "That a server is there, for agents that probe it. Open also where a key is needed.",
        response="endpoints.health.Greeting",
        needs_key=False,
    ),
    "/api/hello": _get(
        "endpoints.health.greet",
        "greetAgent",
        "The same, where Claude Code asks for it.",
        response="endpoints.health.Greeting",
        needs_key=False,
    ),
}

TOKENIZATION: Mapping[str, Route] = {
    "/tokenize": _post(
        "endpoints.tokenize.tokenize",
        "tokenize",
        "The ids of a text.",
        request="endpoints.tokenize.TokenizeTextRequest",
        response="endpoints.tokenize.Tokens",
        errors=TOKENIZE_ERRORS,
    ),
}

GENERATION: Mapping[str, Route] = {
    "/v1/chat/completions": _post(
        "endpoints.chat.create",
        "createChatCompletion",
        "Answers a conversation.",
        request="endpoints.chat.ChatCompletionRequest",
        response="endpoints.chat_output.ChatCompletion",
        event="endpoints.chat_output.ChatCompletionChunk",
        preload=True,
    ),
    "/v1/chat/completions/render": _post(
        "endpoints.tokenize_chat.render",
        "renderChatCompletion",
        "The prompt that a chat with this body would give to the model.",
        request="endpoints.chat.ChatCompletionRequest",
        response="endpoints.tokenize_chat.RenderedPrompt",
        errors=TOKENIZE_ERRORS,
    ),
    "/v1/completions": _post(
        "endpoints.completions.create",
        "createCompletion",
        "Continues a text.",
        request="endpoints.completions.CompletionRequest",
        response="endpoints.completions.Completion",
        event="endpoints.completions.Completion",
        preload=True,
    ),
    "/infill": _post(
        "endpoints.infill.create",
        "infill",
        "Fills in the text between a prefix and a suffix, as llama-server does.",
        request="endpoints.infill.InfillRequest",
        response="endpoints.infill.Infilled",
        event="endpoints.infill.Infilled",
    ),
    "/v1/responses": _post(
        "endpoints.responses.create",
        "createResponse",
        "Answers an input.",
        request="endpoints.responses.ResponsesRequest",
        response="endpoints.responses_output.ResponseObject",
        event="endpoints.responses_items.ResponseEvent",
    ),
    "/v1/responses/input_tokens": _post(
        "endpoints.responses.count",
        "getInputTokenCounts",
        "How many tokens the prompt of an input has.",
        request="endpoints.responses.ResponsesRequest",
        response="endpoints.responses_output.ResponseInputTokens",
        errors=TOKENIZE_ERRORS,
    ),
    "/v1/messages": _messages(
        "endpoints.messages.create",
        "createMessage",
        "Answers a conversation, as Anthropic does.",
        request="endpoints.messages.MessagesRequest",
        response="endpoints.messages_output.AnswerMessage",
        event="endpoints.messages_stream.MessagesEvent",
    ),
    "/v1/messages/count_tokens": _messages(
        "endpoints.messages.count_tokens",
        "countMessageTokens",
        "How many tokens the prompt of a conversation has.",
        request="endpoints.messages.CountTokensRequest",
        response="endpoints.messages_output.MessageTokens",
        errors=TOKENIZE_ERRORS,
    ),
    "/generate": Route(
        "endpoints.generate.create",
        (_generate("GET", "generateFromQuery"), _generate("POST", "generate")),
        preload=True,
    ),
    "/tokenize": _post(
        "endpoints.tokenize_chat.tokenize",
        "tokenize",
        "The ids of a text.",
        request="endpoints.tokenize_chat.TokenizeRequest",
        response="endpoints.tokenize.Tokens",
        errors=TOKENIZE_ERRORS,
    ),
}

EMBEDDINGS: Mapping[str, Route] = {
    "/v1/embeddings": _post(
        "endpoints.embeddings.create",
        "createEmbedding",
        "A vector for each input.",
        request="endpoints.embeddings.EmbeddingRequest",
        response="endpoints.embeddings.EmbeddingList",
        preload=True,
    ),
}

CLASSIFICATION: Mapping[str, Route] = {
    "/v1/classify": _post(
        "endpoints.classify.create",
        "createClassification",
        "The likeliest label of each input, and how likely each label is.",
        request="endpoints.classify.ClassifyRequest",
        response="endpoints.classify.Classification",
        preload=True,
    ),
}

RERANKING: Mapping[str, Route] = {
    "/v1/rerank": _rerank("createRerank", preload=True),
    "/v2/rerank": _rerank("createRerankV2"),
    "/rerank": _rerank("rerank"),
}

ROUTES: Mapping[Task, Mapping[str, Route]] = {
    "text-generation": {**GENERATION, **DETOKENIZATION, **COMMON},
    "feature-extraction": {**EMBEDDINGS, **TOKENIZATION, **DETOKENIZATION, **COMMON},
    "text-classification": {**CLASSIFICATION, **TOKENIZATION, **DETOKENIZATION, **COMMON},
    "text-ranking": {**RERANKING, **TOKENIZATION, **DETOKENIZATION, **COMMON},
}
