from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from handlers.api.endpoints import rerank
from handlers.artifact.manifest import EncoderInfo, PairPrompt
from tests.api.encoder_client import TOKENIZER, EncoderClient, row_of_pair
from tests.encoder.fake_runner import LONGEST

PATH = "/v1/rerank"
QUERY = "What is the capital of France?"
DOCUMENTS = ["A kettle sings", "the capital of France is Paris", "Jupiter", "eleven years"]
BODY = {"query": QUERY, "documents": DOCUMENTS}
COUNTS = [row_of_pair(QUERY, each)[0] for each in DOCUMENTS]
"""What the fake session gives: the number of tokens."""


def client(activation: Any = "none") -> EncoderClient:
    info = EncoderInfo(dimensions=0, max_tokens=LONGEST, labels=("score",), activation=activation)
    return EncoderClient("text-ranking", info=info)


def test_the_answer_has_the_shape_that_cohere_and_jina_share() -> None:
    body = client().json("POST", PATH, BODY)

    ranked = sorted(range(4), key=lambda index: -COUNTS[index])
    assert body.pop("id").startswith("rerank-")
    assert body == {
        "model": "Tiny",
        "results": [{"index": index, "relevance_score": COUNTS[index]} for index in ranked],
        "usage": {"prompt_tokens": sum(COUNTS), "total_tokens": sum(COUNTS)},
        "meta": {"tokens": {"input_tokens": sum(COUNTS)}},
    }


@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank", "/rerank"])
def test_every_name_of_the_path_answers_alike(path: str) -> None:
    assert client().json("POST", path, BODY)["results"][0]["index"] == 1


def test_a_score_lies_between_zero_and_one_where_the_model_has_a_sigmoid() -> None:
    results = client("sigmoid").json("POST", PATH, BODY)["results"]

    assert all(0 < each["relevance_score"] <= 1 for each in results)


def test_a_pair_is_read_with_its_segments() -> None:
    ranker = client()
    ranker.json("POST", PATH, {"query": QUERY, "documents": DOCUMENTS[:1]})

    (batch,) = ranker.runner.batches
    assert batch.token_type_ids.sum() == row_of_pair(QUERY, DOCUMENTS[0])[2] > 0


def test_only_the_best_come_back_with_their_texts_where_that_is_asked_for() -> None:
    documents = [{"text": DOCUMENTS[0]}, *DOCUMENTS[1:]]
    wish = {"documents": documents, "top_n": 2, "return_documents": True}
    results = client().json("POST", PATH, BODY | wish)["results"]

    assert [each["document"]["text"] for each in results] == [
        DOCUMENTS[each["index"]] for each in results
    ]
    assert len(results) == 2


@pytest.mark.parametrize(
    ("wish", "count"),
    [
        ({"top_n": 0}, 4),
        ({"top_n": None}, 4),
        ({"top_n": 2.0}, 2),
        ({"top_n": 10}, 4),
        ({"top_k": 3}, 3),
        ({"top_k": 3, "top_n": 1}, 1),
        ({"max_chunks_per_doc": None, "rank_fields": ["text"]}, 4),
    ],
)
def test_as_many_come_back_as_are_asked_for(wish: dict[str, Any], count: int) -> None:
    assert len(client().json("POST", PATH, BODY | wish)["results"]) == count


def test_a_document_is_read_by_its_text_whatever_else_it_has() -> None:
    documents = [{"text": each, "title": None, "id": 7} for each in DOCUMENTS]

    results = client().json("POST", PATH, BODY | {"documents": documents})["results"]
    assert results == client().json("POST", PATH, BODY)["results"]


def test_a_document_is_looked_at_as_often_as_it_is_named_and_not_for_each_result() -> None:
    looks = 0

    class Counted(list[str | rerank.Document]):
        def __iter__(self) -> Iterator[str | rerank.Document]:
            nonlocal looks
            looks += 1
            return super().__iter__()

    call = rerank.RerankRequest(query=QUERY, documents=Counted(["a"] * 50), return_documents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rerank, "read_json", lambda *_: call)
        assert len(client().json("POST", PATH, BODY)["results"]) == 50
    assert looks == 1


def test_equal_documents_keep_their_order() -> None:
    results = client().json("POST", PATH, BODY | {"documents": ["Paris"] * 5})["results"]

    assert [each["index"] for each in results] == [0, 1, 2, 3, 4]


def test_a_document_may_be_empty() -> None:
    assert len(client().json("POST", PATH, BODY | {"documents": ["", "Paris"]})["results"]) == 2


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": None}, "query"),
        ({"query": "null \0"}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": ["Paris"] * 2049}, "documents"),
        ({"documents": ["Paris", "null \0"]}, "documents[1]"),
        ({"documents": [{"title": "Paris"}]}, "documents[0].text"),
        ({"top_n": -1}, "top_n"),
        ({"top_n": 1.5}, "top_n"),
        ({"documents": [None]}, "documents[0]"),
        ({"documents": [{"text": None}]}, "documents[0].text"),
        ({"max_tokens_per_doc": 10}, "max_tokens_per_doc"),
        ({"truncate": "START"}, "truncate"),
        ({"truncate_prompt_tokens": 3}, "truncate_prompt_tokens"),
        ({"instruction": "Find rain."}, "instruction"),
        ({"instruct": "Find rain."}, "instruct"),
        ({"chat_template_kwargs": {"instruction": "Find rain."}}, "chat_template_kwargs"),
    ],
)
def test_what_cannot_be_ranked_is_refused_by_name(change: dict[str, Any], param: str) -> None:
    status, error = client().error("POST", PATH, BODY | change)

    assert (status, error["param"]) == (400, param), error


def test_a_pair_that_is_too_long_is_named_by_its_document() -> None:
    status, error = client().error("POST", PATH, BODY | {"documents": ["Paris", "a " * 700]})

    assert (status, error["code"], error["param"]) == (
        400,
        "context_length_exceeded",
        "documents[1]",
    )


def test_a_query_that_leaves_no_room_for_a_document_is_named_itself() -> None:
    status, error = client().error("POST", PATH, BODY | {"query": "a " * 700})

    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", "query")
    assert "query has 703 tokens, and the model takes 600" in error["message"]


@pytest.mark.parametrize("wish", [{"truncate": True}, {"truncate": "END"}, {"truncation": True}])
def test_a_long_document_is_cut_and_the_query_kept(wish: dict[str, Any]) -> None:
    ranker = client()
    wish = {"documents": ["a " * 700], **wish}
    body = ranker.json("POST", PATH, BODY | wish)

    (batch,) = ranker.runner.batches
    whole = client()
    whole.json("POST", PATH, BODY | {"documents": ["a"]})
    asked = int((whole.runner.batches[0].token_type_ids == 0).sum())
    assert body["usage"]["total_tokens"] == LONGEST
    assert int((batch.token_type_ids == 0).sum()) == asked


@pytest.mark.parametrize(
    ("change", "param"),
    [({"query": "x" * 300_000}, "query"), ({"documents": ["a", "x" * 300_000]}, "documents[1]")],
)
def test_a_text_of_too_many_characters_is_refused_even_where_it_would_be_cut(
    change: dict[str, Any], param: str
) -> None:
    status, error = client().error("POST", PATH, BODY | {"truncate": True} | change)

    assert (status, error["code"], error["param"]) == (400, "context_length_exceeded", param)


def judge(prompt: PairPrompt) -> EncoderClient:
    info = EncoderInfo(dimensions=0, max_tokens=LONGEST, labels=("yes",), pair_prompt=prompt)
    return EncoderClient("text-ranking", info=info)


JUDGED = PairPrompt("Look: {instruction} {query} is {document} so?", "kettle")


@pytest.mark.parametrize(
    ("wish", "instruction"),
    [
        ({}, "kettle"),
        ({"instruction": None, "instruct": ""}, "kettle"),
        ({"instruction": "Jupiter sings"}, "Jupiter sings"),
        ({"instruct": "Jupiter sings"}, "Jupiter sings"),
        ({"instruction": "Jupiter sings", "instruct": "years"}, "Jupiter sings"),
    ],
)
def test_a_language_model_reads_its_own_prompt(wish: dict[str, Any], instruction: str) -> None:
    body = judge(JUDGED).json("POST", PATH, BODY | wish)

    scores = {each["index"]: each["relevance_score"] for each in body["results"]}
    texts = [f"Look: {instruction} {QUERY} is {each} so?" for each in DOCUMENTS]
    assert [scores[n] for n in range(4)] == [len(TOKENIZER.encode(text)) for text in texts]


@pytest.mark.parametrize(
    ("prompt", "change", "param"),
    [
        (PairPrompt("{query} is {document}"), {"instruction": "Find rain."}, "instruction"),
        (JUDGED, {"instruction": "null \0"}, "instruction"),
        (JUDGED, {"instruct": 7}, "instruct"),
        (JUDGED, {"instruction": "x" * 300_000}, "instruction"),
        (JUDGED, {"query": "a " * 700}, "query"),
        (JUDGED, {"instruction": "a " * 700}, "query"),
        (JUDGED, {"documents": ["a", "a " * 700]}, "documents[1]"),
        (JUDGED, {"truncate_prompt_tokens": 5}, "query"),
    ],
)
def test_what_a_language_model_cannot_rank_is_refused_by_name(
    prompt: PairPrompt, change: dict[str, Any], param: str
) -> None:
    status, error = judge(prompt).error("POST", PATH, BODY | change)

    assert (status, error["param"]) == (400, param), error


def test_a_language_model_reads_a_long_document_cut() -> None:
    ranker = judge(JUDGED)
    wish = {"documents": ["a " * 700], "truncate": True}
    body = ranker.json("POST", PATH, BODY | wish)

    (batch,) = ranker.runner.batches
    assert body["usage"]["total_tokens"] == LONGEST
    assert batch.input_ids[0, -2:].tolist() == TOKENIZER.encode("so?")[-2:]
