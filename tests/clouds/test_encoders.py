"""Encoders on both clouds, with OpenAI's own client where it knows the path."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest

from handlers.artifact.manifest import Task
from tests.support.openai_clients import openai_client
from tests.support.raw_http import connect, post_bytes
from tests.support.servers import (
    ROOT,
    Cloud,
    CloudRun,
    Lambda,
    cloud_run,
    lambda_emulator,
    wait_until,
)

EMBEDDINGS = "/v1/embeddings"
TEXTS = ["A kettle sings when the water boils.", "Paris", "The keeper counted ships. " * 4]
LONG = "the keeper counted ships " * 20  # of the 128 tokens that the model takes
PATHS: dict[Task, list[tuple[str, dict[str, Any]]]] = {
    "feature-extraction": [
        (EMBEDDINGS, {"input": TEXTS}),
        (EMBEDDINGS, {"input": TEXTS, "dimensions": 8, "encoding_format": "base64"}),
        (EMBEDDINGS, {"input": [[2, 9, 3], [2, 3]]}),
        (EMBEDDINGS, {"input": LONG * 9}),
        (EMBEDDINGS, {"input": LONG * 9, "truncate": True}),
        (EMBEDDINGS, {"input": ["Paris", ""]}),
        ("/v1/rerank", {"query": "Paris", "documents": TEXTS}),
        ("/v1/chat/completions", {"messages": []}),
    ],
    "text-classification": [("/v1/classify", {"input": TEXTS}), (EMBEDDINGS, {"input": TEXTS})],
    "text-ranking": [
        ("/v1/rerank", {"query": "Paris", "documents": TEXTS, "return_documents": True}),
        ("/rerank", {"query": "Paris", "documents": [{"text": "ships"}], "top_n": 3}),
    ],
}


@pytest.fixture(scope="module")
def clouds(tiny_encoders: dict[Task, Path], directory: Path) -> Iterator[dict[Task, list[Cloud]]]:
    """Both clouds for each task."""
    with contextlib.ExitStack() as stack:
        yield {
            task: [
                stack.enter_context(cloud_run(artifact, directory)),
                stack.enter_context(lambda_emulator(artifact, directory)),
            ]
            for task, artifact in tiny_encoders.items()
        }


@pytest.fixture
def server(clouds: dict[Task, list[Cloud]]) -> CloudRun:
    embedder = clouds["feature-extraction"][0]
    assert isinstance(embedder, CloudRun)
    return embedder


@pytest.fixture(params=[0, 1], ids=["cloud_run", "lambda"])
def client(
    request: pytest.FixtureRequest, clouds: dict[Task, list[Cloud]]
) -> Iterator[openai.OpenAI]:
    with openai_client(clouds["feature-extraction"][request.param]) as client:
        yield client


@pytest.mark.parametrize(
    ("task", "path", "body"), [(task, *each) for task in PATHS for each in PATHS[task]]
)
def test_the_same_request_gets_the_same_body_on_both_clouds(
    clouds: dict[Task, list[Cloud]], task: Task, path: str, body: dict[str, Any]
) -> None:
    one, other = (cloud.post(path, body) for cloud in clouds[task])

    assert one.status == other.status
    assert anonymous(one.json()) == anonymous(other.json())


@pytest.mark.parametrize("task", PATHS)
def test_a_direct_invoke_is_the_body_of_what_the_model_does(
    clouds: dict[Task, list[Cloud]], task: Task
) -> None:
    path, body = PATHS[task][0]
    _, function = clouds[task]
    assert isinstance(function, Lambda)
    assert anonymous(function.invoke(body)) == anonymous(function.post(path, body).json())


@pytest.mark.parametrize("cloud", ["serve", "lambda"])
@pytest.mark.parametrize("task", PATHS)
def test_the_request_that_make_prints_fits_the_model(
    clouds: dict[Task, list[Cloud]], tiny_encoders: dict[Task, Path], task: Task, cloud: str
) -> None:
    address = clouds[task][cloud == "lambda"].client.base_url
    manifest = tiny_encoders[task] / "manifest.json"
    script = [sys.executable, "scripts/first_question.py", cloud, str(address.port), str(manifest)]
    printed = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True).stdout

    _, command = printed.splitlines()
    asked = ["sh", "-c", command.replace("curl", "curl -s --noproxy '*'", 1)]
    answer = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)

    found = json.loads(answer["body"]) if cloud == "lambda" else answer
    assert found.get("data") or found.get("results")


def anonymous(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in {"id", "created"}}


def test_openais_client_reads_vectors(client: openai.OpenAI) -> None:
    """It asks for base64, unless told otherwise, and decodes it."""
    answer = client.embeddings.create(model="any", input=TEXTS)
    written = client.embeddings.create(model="any", input=TEXTS, encoding_format="float")

    assert [each.index for each in answer.data] == [0, 1, 2]
    assert np.linalg.norm([each.embedding for each in answer.data], axis=1) == pytest.approx(1)
    for one, other in zip(answer.data, written.data, strict=True):
        assert np.array(one.embedding, np.float32).tolist() == (
            np.array(other.embedding, np.float32).tolist()
        )
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 10
    assert answer.model == client.models.list().data[0].id


def test_openais_client_sends_ids_and_asks_for_fewer_dimensions(client: openai.OpenAI) -> None:
    one = client.embeddings.create(model="any", input=[2, 9, 3], dimensions=8)
    several = client.embeddings.create(model="any", input=[[2, 9, 3]], dimensions=8, user="me")

    assert len(one.data[0].embedding) == 8
    assert one.data == several.data


def test_openais_client_is_told_which_input_is_too_long(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.embeddings.create(model="any", input=["Paris", LONG * 9])

    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "input[1]")


def test_openais_client_is_told_that_an_encoder_does_not_chat(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="serves the task feature-extraction"):
        client.chat.completions.create(model="any", messages=[{"role": "user", "content": "Hi"}])


def test_a_crowd_gets_the_answers_that_each_would_get_alone(server: CloudRun) -> None:
    asked = [[f"{text} {number}" for text in TEXTS] for number in range(24)]

    with ThreadPoolExecutor(24) as pool:
        together = list(pool.map(lambda texts: vectors(server, texts), asked))

    for texts, rows in zip(asked, together, strict=True):
        np.testing.assert_allclose(rows, vectors(server, texts), atol=1e-6)


def vectors(server: CloudRun, texts: list[str]) -> list[list[float]]:
    body = server.post(EMBEDDINGS, {"input": texts}).json()
    return [each["embedding"] for each in body["data"]]


def test_a_flood_is_refused_in_part_and_the_server_goes_on(
    tiny_encoders: dict[Task, Path], directory: Path
) -> None:
    few = {"KINDLING_SLOTS": "1", "KINDLING_QUEUE_LIMIT": "1"}
    body = {"input": [LONG] * 300}
    with cloud_run(tiny_encoders["feature-extraction"], directory, **few) as server:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: server.post(EMBEDDINGS, body), range(16)))

        assert {answer.status for answer in answers} == {200, 429}
        refused = next(answer for answer in answers if answer.status == 429)
        assert refused.headers["retry-after"] == "1"
        assert server.post(EMBEDDINGS, {"input": "Paris"}).status == 200


def test_a_query_is_answered_before_the_documents_that_came_first(server: CloudRun) -> None:
    documents = {"input": [LONG] * 2000, "encoding_format": "base64"}
    with ThreadPoolExecutor(1) as pool:
        long = pool.submit(server.post, EMBEDDINGS, documents)
        wait_until(lambda: server.health()["running"] == 1 or long.done())
        assert server.post(EMBEDDINGS, {"input": "Paris"}).status == 200
        assert not long.done()
        assert len(long.result().json()["data"]) == 2000


def test_a_client_that_leaves_takes_its_inputs_with_it(server: CloudRun) -> None:
    with connect(server) as leaver:
        leaver.sendall(post_bytes(EMBEDDINGS, {"input": [LONG] * 2000}))
        wait_until(lambda: server.health()["running"] == 1)
    wait_until(lambda: any(line["status"] == 499 for line in server.process.requests))

    health = server.health()
    assert (health["running"], health["waiting"]) == (0, 0)


def test_a_server_that_is_told_to_stop_finishes_what_it_computes(
    tiny_encoders: dict[Task, Path], directory: Path
) -> None:
    body = {"input": [LONG] * 2000, "encoding_format": "base64"}
    artifact = tiny_encoders["feature-extraction"]
    with (
        cloud_run(artifact, directory, KINDLING_DRAIN_SECONDS="100") as server,
        ThreadPoolExecutor(1) as pool,
    ):
        answer = pool.submit(server.post, EMBEDDINGS, body)
        wait_until(lambda: server.health()["running"] == 1)
        server.process.popen.send_signal(signal.SIGTERM)

        assert len(answer.result().json()["data"]) == 2000
        assert server.process.wait() == 0


def test_the_log_counts_tokens_and_has_no_text(server: CloudRun) -> None:
    server.post(EMBEDDINGS, {"input": "lighthouse"})

    line = server.process.requests[-1]
    assert line["prompt_tokens"] > 2
    assert "lighthouse" not in json.dumps(line)
