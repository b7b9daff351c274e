from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.api.endpoints.embeddings import base64_vectors, json_vectors
from handlers.artifact.manifest import EncoderInfo
from handlers.text.tokenizer import EncodedText, Tokenizer
from tests.api.encoder_client import TOKENIZER, EncoderClient, ids_of, row_of_text
from tests.encoder.fake_runner import LONGEST, WIDTH

PATH = "/v1/embeddings"
INFO = EncoderInfo(dimensions=WIDTH, max_tokens=LONGEST)
PROMPTED = EncoderInfo(
    dimensions=WIDTH, max_tokens=LONGEST, prompts={"query": "what is ", "passage": "text "}
)
TEXTS = ["A kettle sings", "when the water boils; the capital of France is Paris", "Paris"]


def client(info: EncoderInfo = INFO, **environ: str) -> EncoderClient:
    return EncoderClient("feature-extraction", info=info, environ=environ)


def vectors(body: Any) -> list[Any]:
    assert [each["index"] for each in body["data"]] == list(range(len(body["data"])))
    return [each["embedding"] for each in body["data"]]


def test_the_answer_has_openais_shape() -> None:
    body = client().json("POST", PATH, {"input": "Paris", "model": "text-embedding-3-small"})

    count = len(ids_of(["Paris"])[0])
    assert body == {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": row_of_text("Paris")}],
        "model": "Tiny",
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


def test_texts_get_their_vectors_in_their_order() -> None:
    body = client().json("POST", PATH, {"input": TEXTS})

    assert vectors(body) == [row_of_text(text) for text in TEXTS]
    assert body["usage"]["total_tokens"] == sum(map(len, ids_of(TEXTS)))


def test_ids_are_taken_as_they_are() -> None:
    several = client().json("POST", PATH, {"input": ids_of(TEXTS)})
    one = client().json("POST", PATH, {"input": ids_of(TEXTS)[0]})

    assert vectors(several) == [row_of_text(text) for text in TEXTS]
    assert vectors(one) == [row_of_text(TEXTS[0])]


def test_base64_is_little_endian_float32_of_the_same_numbers() -> None:
    body = client().json("POST", PATH, {"input": TEXTS, "encoding_format": "base64"})

    decoded = [np.frombuffer(base64.b64decode(each), "<f4").tolist() for each in vectors(body)]
    assert decoded == [row_of_text(text) for text in TEXTS]


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1))
def test_numbers_as_they_are_written_are_the_same_float32(numbers: list[float]) -> None:
    row = np.array([numbers], np.float32)

    assert np.array(json_vectors(row), np.float32).tobytes() == row.tobytes()
    assert base64.b64decode(base64_vectors(row)[0]) == row.tobytes()


def test_numbers_are_written_without_digits_that_float32_does_not_have() -> None:
    row = np.random.default_rng(0).standard_normal((1, 1000)).astype(np.float32)

    assert max(len(repr(abs(number)).strip("0.")) for number in json_vectors(row)[0]) <= 10


def test_fewer_dimensions_are_the_first_ones_at_length_one() -> None:
    (vector,) = vectors(client().json("POST", PATH, {"input": "Paris", "dimensions": 2}))

    assert len(vector) == 2
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert vector[1] / vector[0] == pytest.approx(row_of_text("Paris")[1] / row_of_text("Paris")[0])


def test_all_dimensions_are_the_vector_itself() -> None:
    (vector,) = vectors(client().json("POST", PATH, {"input": "Paris", "dimensions": WIDTH}))

    assert vector == row_of_text("Paris")


@pytest.mark.parametrize(
    ("body", "param", "reason"),
    [
        ({}, "input", "required"),
        ({"input": ""}, "input", "empty"),
        ({"input": []}, "input", "empty"),
        ({"input": [[]]}, "input[0]", "empty"),
        ({"input": ["Paris", ""]}, "input[1]", "empty"),
        ({"input": ["Paris", 5]}, "input", "mixes"),
        ({"input": [[5], "Paris"]}, "input", "mixes"),
        ({"input": [5, [5]]}, "input", "mixes"),
        ({"input": {"text": "Paris"}}, "input", "Expected"),
        ({"input": "null \0"}, "input", "null character"),
        ({"input": ["Paris", "null \0"]}, "input[1]", "null character"),
        ({"input": [5, 384]}, "input", "384 at place 1, outside 0 to 383"),
        ({"input": [[5], [384]]}, "input[1]", "384 at place 0, outside 0 to 383"),
        ({"input": [[101, 100_257, 102]]}, "input[0]", "check_embedding_ctx_length=False"),
        ({"input": [5.5]}, "input[0]", "Expected"),
        ({"input": [-1]}, "input[0]", "Expected"),
        ({"input": "Paris", "dimensions": 4}, "dimensions", "Tiny has 3"),
        ({"input": "Paris", "dimensions": 0}, "dimensions", ">= 1"),
        ({"input": "Paris", "encoding_format": "int8"}, "encoding_format", "int8"),
        ({"input": "Paris", "prompt_name": "query"}, "prompt_name", "none"),
        ({"input": "Paris", "prompt_name": "q" * 10_000}, "prompt_name", "q…q"),
        ({"input": "Paris", "encoding_format": "x" * 10_000}, "encoding_format", "x…x"),
        ({"input": "Paris", "input_type": "image"}, "input_type", "known are: query, search_query"),
        ({"input": "Paris", "task": "embed"}, "task", "known are: query, search_query"),
        ({"input": "Paris", "truncate": "START"}, "truncate", "START"),
        ({"input": "Paris", "truncate_prompt_tokens": -2}, "truncate_prompt_tokens", ">= -1"),
        ({"input": "Paris", "truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "least 3"),
        ({"input": "Paris", "truncate_prompt_tokens": 2}, "truncate_prompt_tokens", "least 3"),
        ({"input": [5], "truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "least 1"),
        ({"input": ["Paris"] * 2049}, "input", "2,049 entries"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_name(
    body: dict[str, Any], param: str, reason: str
) -> None:
    status, error = client().error("POST", PATH, body)

    assert (status, error["code"], error["param"]) == (400, "invalid_request_error", param)
    assert reason in error["message"]
    assert len(error["message"]) < 500


def test_as_many_inputs_as_openai_takes_are_taken() -> None:
    assert len(vectors(client().json("POST", PATH, {"input": ["Paris"] * 2048}))) == 2048


@pytest.mark.parametrize(
    ("given", "param"),
    [("a " * 700, "input"), (["a", "a " * 700], "input[1]"), ([5] * 700, "input")],
)
def test_an_input_that_is_too_long_is_named(given: Any, param: str) -> None:
    status, error = client().error("POST", PATH, {"input": given})

    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", param)
    assert "the model takes 600" in error["message"]


@pytest.mark.parametrize(
    ("wish", "kept"),
    [
        ({"truncate": True}, 600),
        ({"truncate": "END"}, 600),
        ({"truncation": True}, 600),
        ({"truncate_prompt_tokens": -1}, 600),
        ({"truncate_prompt_tokens": 1000}, 600),
        ({"truncate_prompt_tokens": 10}, 10),
        ({"truncate_prompt_tokens": 3}, 3),
    ],
)
@pytest.mark.parametrize("given", ["a " * 700, [5] * 700])
def test_the_end_of_a_long_input_is_left_out_where_that_is_asked_for(
    given: Any, wish: dict[str, Any], kept: int
) -> None:
    body = client().json("POST", PATH, {"input": given} | wish)

    assert body["usage"]["prompt_tokens"] == kept


def test_a_text_that_is_cut_keeps_its_last_special_token() -> None:
    encoder = client()
    encoder.json("POST", PATH, {"input": "a " * 700, "truncate_prompt_tokens": 10})

    (batch,) = encoder.runner.batches
    assert batch.input_ids[0, [0, -1]].tolist() == [ids_of(["a"])[0][0], ids_of(["a"])[0][-1]]


@pytest.mark.parametrize(
    ("wish", "prefix"),
    [
        ({}, ""),
        ({"prompt_name": "query"}, "what is "),
        ({"input_type": "query"}, "what is "),
        ({"input_type": "document"}, "text "),
        ({"input_type": "passage"}, "text "),
        ({"input_type": "search_document"}, "text "),
        ({"input_type": "search_query"}, "what is "),
        ({"input_type": "RETRIEVAL_QUERY"}, "what is "),
        ({"input_type": "clustering"}, ""),
        ({"input_type": "", "prompt_name": "", "task": ""}, ""),
        ({"task": "retrieval.passage"}, "text "),
        ({"task": "retrieval.passage", "input_type": "query"}, "what is "),
        ({"input_type": "document", "prompt_name": "query"}, "what is "),
    ],
)
def test_a_models_own_prompt_comes_before_a_text(wish: dict[str, str], prefix: str) -> None:
    body = client(PROMPTED).json("POST", PATH, {"input": "Paris"} | wish)

    assert vectors(body) == [row_of_text(f"{prefix}Paris")]


def test_white_space_around_a_text_is_left_out_as_by_sentence_transformers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    read: list[str] = []
    encode_all = TOKENIZER.encode_all

    def watched(_: Tokenizer, texts: list[str]) -> list[EncodedText]:
        read.extend(texts)
        return encode_all(texts)

    monkeypatch.setattr(Tokenizer, "encode_all", watched)

    client(PROMPTED).json("POST", PATH, {"input": [" Paris\n", "a  b "]})
    client(PROMPTED).json("POST", PATH, {"input": " Paris", "prompt_name": "query"})

    assert read == ["Paris", "a  b", "what is  Paris"]


def test_a_models_default_prompt_comes_where_none_is_asked_for() -> None:
    info = EncoderInfo(
        dimensions=WIDTH, max_tokens=LONGEST, prompts={"query": "what is "}, default_prompt="query"
    )

    assert vectors(client(info).json("POST", PATH, {"input": "Paris"})) == [
        row_of_text("what is Paris")
    ]


@pytest.mark.parametrize("asked", ["retrieval.query", "Retrieval-query", "query"])
def test_a_prompt_is_found_by_its_own_name_first(asked: str) -> None:
    prompts = {"query": "q ", "Retrieval-query": "r "}
    info = EncoderInfo(dimensions=WIDTH, max_tokens=LONGEST, prompts=prompts)
    body = client(info).json("POST", PATH, {"input": "Paris", "input_type": asked})

    assert vectors(body) == [row_of_text("q Paris" if asked == "query" else "r Paris")]


def test_ids_may_be_written_as_any_json_number() -> None:
    (ids,) = ids_of(["Paris"])
    several = [[float(token_id) for token_id in ids]] * 2

    assert vectors(client().json("POST", PATH, {"input": several})) == [row_of_text("Paris")] * 2
    assert vectors(client().json("POST", PATH, {"input": several[0], "dimensions": 3.0})) == [
        row_of_text("Paris")
    ]


def test_an_input_type_without_a_prompt_adds_nothing() -> None:
    body = client().json("POST", PATH, {"input": "Paris", "input_type": "query"})

    assert vectors(body) == [row_of_text("Paris")]


def test_times_are_told_in_the_head() -> None:
    answer = client().send("POST", PATH, {"input": "Paris"})

    assert [part.partition(";")[0] for part in answer.headers["server-timing"].split(", ")] == [
        "queue",
        "encode",
    ]


def test_a_time_that_has_passed_is_told() -> None:
    status, error = client().error("POST", PATH, {"input": "Paris"}, deadline=0.0)

    assert (status, error["code"]) == (504, "deadline_exceeded")


def test_a_fault_says_nothing_of_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    encoder = client()
    encoder.runner.bug = ZeroDivisionError("secret")

    status, error = encoder.error("POST", PATH, {"input": "Paris"})

    assert (status, error["code"]) == (500, "internal_error")
    assert "secret" not in error["message"]
    assert "secret" in caplog.text
