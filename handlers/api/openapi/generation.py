"""What a decoder answers. Imported by operations.py."""

from __future__ import annotations

from handlers.api import generate, tokenize
from handlers.api.chat import endpoint as chat
from handlers.api.completions import endpoint as completions
from handlers.api.openapi import chat_shapes, response_shapes, shapes
from handlers.api.openapi.operations import OF_A_GENERATION, OF_A_READING, Operation, Table
from handlers.api.responses import endpoint as responses

OPERATIONS: Table = {
    ("/v1/chat/completions", "POST"): Operation(
        id="createChatCompletion",
        summary="Answers a conversation.",
        call=chat.ChatCall,
        refused=chat.UNSUPPORTED,
        answer=chat_shapes.ChatCompletion,
        event=chat_shapes.ChatCompletionChunk,
        errors=OF_A_GENERATION,
    ),
    ("/v1/chat/completions/render", "POST"): Operation(
        id="renderChatCompletion",
        summary="The prompt that a chat with this body would give to the model.",
        call=chat.ChatCall,
        refused=chat.UNSUPPORTED,
        answer=shapes.Prompt,
        errors=OF_A_READING,
    ),
    ("/v1/completions", "POST"): Operation(
        id="createCompletion",
        summary="Continues a text.",
        call=completions.CompletionCall,
        refused=completions.UNSUPPORTED,
        answer=shapes.Completion,
        event=shapes.Completion,
        errors=OF_A_GENERATION,
    ),
    ("/v1/responses", "POST"): Operation(
        id="createResponse",
        summary="Answers an input.",
        call=responses.ResponseCall,
        refused=responses.UNSUPPORTED,
        answer=response_shapes.Response,
        event=response_shapes.ResponseEvent,
        errors=OF_A_GENERATION,
    ),
    ("/v1/responses/input_tokens", "POST"): Operation(
        id="getInputTokenCounts",
        summary="How many tokens the prompt of an input has.",
        call=responses.ResponseCall,
        refused=responses.UNSUPPORTED,
        answer=response_shapes.InputTokens,
        errors=OF_A_READING,
    ),
    ("/generate", "GET"): Operation(
        id="generateFromQuery",
        summary="A prompt in, a response out. Greedy unless told otherwise.",
        call=generate.GenerateCall,
        refused=generate.UNSUPPORTED,
        in_query=True,
        answer=shapes.Generated,
        errors=OF_A_GENERATION,
    ),
    ("/generate", "POST"): Operation(
        id="generate",
        summary="A prompt in, a response out. Greedy unless told otherwise.",
        call=generate.GenerateCall,
        refused=generate.UNSUPPORTED,
        answer=shapes.Generated,
        errors=OF_A_GENERATION,
    ),
    ("/tokenize", "POST"): Operation(
        id="tokenize",
        summary="The ids of a text.",
        call=tokenize.TokenizeCall,
        refused=tokenize.UNSUPPORTED,
        answer=shapes.Tokens,
        errors=OF_A_READING,
    ),
}
