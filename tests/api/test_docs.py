"""docs/api.md says what the code does."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import msgspec
import pytest
from openai.types import completion_create_params as text_params
from openai.types import embedding_create_params as embedding_params
from openai.types.chat import completion_create_params as chat_params
from openai.types.responses import response_create_params as response_params

from handlers.api import fields, generate, text_tokens, tokenize, unsupported_fields
from handlers.api.chat import endpoint as chat
from handlers.api.completions import endpoint as completions
from handlers.api.encoding import classify, embeddings, rerank
from handlers.api.encoding import fields as encoding_fields
from handlers.api.encoding.fields import EncodingCall
from handlers.api.responses import endpoint as responses
from handlers.api.routes import COMMON, ROUTES
from handlers.engine.params import SamplingParams
from handlers.errors import RequestError
from tests.support.scripted_engine import subclasses

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
Rows = list[list[str]]


def tables() -> dict[str, Rows]:
    """The page's tables by their first line."""
    found: dict[str, Rows] = {}
    for block in re.findall(r"(?:^\|.*\n)+", PAGE, re.MULTILINE):
        head, _, *rows = block.splitlines()
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
        found.setdefault(head, []).extend(cells)
    return found


TABLES = tables()
FIELDS = {row[0].strip("`") for row in TABLES["| field | values | default | meaning |"]}
OWN_FIELDS = {
    (row[0].strip("`"), row[1].strip("`")) for row in TABLES["| path | field | values | meaning |"]
}
REFUSED = {
    row[0].strip("`"): re.findall(r"`(\w+)`", row[1]) for row in TABLES["| paths | fields |"]
}


def test_every_path_and_method_is_listed() -> None:
    listed = {
        row[0].strip("`"): row[1].split(", ") for row in TABLES["| path | method | what it does |"]
    }

    routes = {path: route for table in ROUTES.values() for path, route in table.items()}
    assert listed == {path: list(route.methods) for path, route in routes.items()}


def test_every_task_lists_its_paths() -> None:
    head = "| task | paths, besides `/v1/models`, `/openapi.json`, `/healthz` and `/health` |"
    listed = {row[0].strip("`"): set(re.findall(r"`(.+?)`", row[1])) for row in TABLES[head]}

    everywhere = set(COMMON)
    assert listed == {task: set(table) - everywhere for task, table in ROUTES.items()}


def test_every_shared_field_is_listed() -> None:
    shared = {*fields.OpenAICall.__struct_fields__, *EncodingCall.__struct_fields__}

    assert shared == FIELDS


@pytest.mark.parametrize(
    ("path", "call", "base"),
    [
        ("/v1/chat/completions", chat.ChatCall, fields.OpenAICall),
        ("/v1/completions", completions.CompletionCall, fields.OpenAICall),
        ("/v1/responses", responses.ResponseCall, fields.Sampling),
        ("/generate", generate.GenerateCall, fields.Sampling),
        ("/tokenize", tokenize.TokenizeCall, None),
        ("/v1/embeddings", embeddings.EmbeddingCall, EncodingCall),
        ("/v1/classify", classify.ClassifyCall, EncodingCall),
        ("/v1/rerank", rerank.RerankCall, EncodingCall),
        ("/detokenize", text_tokens.DetokenizeCall, None),
    ],
)
def test_every_field_of_a_path_is_listed(
    path: str, call: type[msgspec.Struct], base: type[msgspec.Struct] | None
) -> None:
    own = set(call.__struct_fields__) - set(base.__struct_fields__ if base else ())

    assert own == {name for listed_path, name in OWN_FIELDS if listed_path == path}


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("/v1/chat/completions", chat.UNSUPPORTED),
        ("/v1/completions", completions.UNSUPPORTED),
        ("/v1/responses", responses.UNSUPPORTED),
        ("/generate", generate.UNSUPPORTED),
    ],
)
def test_every_refused_field_is_listed(path: str, refused: dict[str, object]) -> None:
    assert list(unsupported_fields.COMMON) == REFUSED["all that generate"]
    assert refused.keys() - unsupported_fields.COMMON.keys() == set(REFUSED[path])


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        ("/v1/embeddings", embeddings.UNSUPPORTED),
        ("/v1/classify", classify.UNSUPPORTED),
        ("/v1/rerank", rerank.UNSUPPORTED),
    ],
)
def test_every_refused_field_of_an_encoder_is_listed(path: str, refused: dict[str, object]) -> None:
    assert list(encoding_fields.UNSUPPORTED) == REFUSED["all that encode"]
    assert refused.keys() - encoding_fields.UNSUPPORTED.keys() == set(REFUSED[path])


def test_every_ignored_field_is_listed() -> None:
    _, _, rest = PAGE.partition("## Fields that are ignored")
    section, _, _ = rest.partition("\n## ")
    listed = re.findall(r"^`.*`$", section, re.MULTILINE)

    assert [re.findall(r"`(\w+)`", line) for line in listed] == [
        list(unsupported_fields.IGNORED),
        list(unsupported_fields.IGNORED_DETAILS),
    ]


@pytest.mark.parametrize(
    ("parameters", "call", "refused"),
    [
        (chat_params.CompletionCreateParamsStreaming, chat.ChatCall, chat.UNSUPPORTED),
        (
            text_params.CompletionCreateParamsStreaming,
            completions.CompletionCall,
            completions.UNSUPPORTED,
        ),
        (
            embedding_params.EmbeddingCreateParams,
            embeddings.EmbeddingCall,
            embeddings.UNSUPPORTED,
        ),
        (
            response_params.ResponseCreateParamsStreaming,
            responses.ResponseCall,
            {**responses.UNSUPPORTED, **dict.fromkeys(responses.IGNORED, ())},
        ),
    ],
    ids=["chat", "completions", "embeddings", "responses"],
)
def test_every_parameter_of_openais_client_is_taken_refused_or_ignored(
    parameters: type, call: type[msgspec.Struct], refused: dict[str, object]
) -> None:
    taken = set(call.__struct_fields__)
    lists = [taken, set(refused), set(unsupported_fields.IGNORED) - taken]

    for name in typing.get_type_hints(parameters):
        assert sum(name in one for one in lists) == 1, name


def test_what_responses_ignore_besides_is_listed() -> None:
    listed = ", ".join(f"`{name}`" for name in responses.IGNORED)

    assert f"On `/v1/responses` so are {listed}." in PAGE


def test_every_refused_field_of_tokenize_is_listed() -> None:
    assert list(tokenize.UNSUPPORTED) == REFUSED["/tokenize"]


def test_every_error_has_its_row() -> None:
    listed = {row[0]: (int(row[1]), row[2]) for row in TABLES["| error | status | code | when |"]}

    assert listed == {kind.__name__: (kind.status, kind.code) for kind in subclasses(RequestError)}


def test_the_defaults_are_the_engines() -> None:
    shown = {row[0].strip("`"): row[2] for row in TABLES["| field | values | default | meaning |"]}
    defaults = {
        field.name: field.default
        for field in msgspec.structs.fields(SamplingParams)
        if field.name not in ("max_tokens", "seed") and isinstance(field.default, int | float)
    }

    assert {name: shown[name].split(",")[0] for name in defaults} == {
        name: str(default).lower() if isinstance(default, bool) else f"{default:g}"
        for name, default in defaults.items()
    }
