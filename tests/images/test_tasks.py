"""The images of a classifier and of a reranker, on both clouds. Their weights are random."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.images import inspect
from tests.images import docker
from tests.images.docker import CLOUD_RUN, LAMBDA, OFFLINE, PUBLISHED, READ_ONLY, Container
from tests.images.tiny_recipes import CLASSIFIER, RANKER
from tests.support.servers import CloudRun, cloud_run

TEXTS = ["What a lovely day this was!", "It rained.", "word " * 20]
CLASSIFY = ("/v1/classify", {"input": TEXTS})
RERANK = ("/v1/rerank", {"query": "How was the day?", "documents": TEXTS})
CHAT = ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hello"}]})

# A recipe's task, its own route, and routes that are other tasks'.
TASKS = {
    CLASSIFIER: ("text-classification", CLASSIFY, [CHAT, RERANK]),
    RANKER: ("text-ranking", RERANK, [CHAT, CLASSIFY]),
}


@dataclass(frozen=True)
class Images:
    """One model's, both running, and the code outside of them with the same files."""

    name: str
    on_lambda: Container
    on_cloud_run: Container
    outside: CloudRun

    def ask(self, path: str, body: object) -> Iterator[tuple[int, Any]]:
        """Status and body of each cloud's answer."""
        yield self.on_lambda.on_function_url(path, body)
        with httpx.Client(trust_env=False, timeout=120) as client:
            answer = client.post(self.on_cloud_run.url + path, json=body)
            yield answer.status_code, answer.json()


@pytest.fixture(scope="module", params=TASKS)
def images(
    request: pytest.FixtureRequest,
    tiny_images: None,
    directory: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Images]:
    name: str = request.param
    on_lambda, on_cloud_run = f"{LAMBDA}:{name}", f"{CLOUD_RUN}:{name}"
    model = docker.copied_model(on_lambda, tmp_path_factory.mktemp(name))
    with (
        docker.aws_lambda(*OFFLINE, *READ_ONLY, image=on_lambda) as function,
        docker.cloud_run(*READ_ONLY, *PUBLISHED, image=on_cloud_run) as service,
        cloud_run(model, directory) as outside,
    ):
        yield Images(name, function, service, outside)


def test_both_images_score_as_the_code_outside_does(images: Images) -> None:
    _, (path, body), _ = TASKS[images.name]
    expected = scores(images.outside.post(path, body).json())
    assert len({round(score, 6) for score in expected.values()}) == len(expected)
    for status, answer in images.ask(path, body):
        assert status == 200
        assert scores(answer) == pytest.approx(expected, abs=1e-6)


def scores(answer: Any) -> dict[tuple[int, str], float]:
    """By the text's place, and a classifier's label."""
    if "results" in answer:
        return {(each["index"], ""): each["relevance_score"] for each in answer["results"]}
    return {
        (each["index"], label): probability
        for each in answer["data"]
        for label, probability in zip(answer["labels"], each["probs"], strict=True)
    }


def test_a_route_of_another_task_is_404_and_says_which_task_the_image_has(images: Images) -> None:
    task, _, others = TASKS[images.name]
    for path, body in others:
        for status, answer in images.ask(path, body):
            assert status == 404
            assert task in answer["error"]["message"]


def test_it_is_labelled_as_what_it_holds_and_starts_as_the_demos_image_does(images: Images) -> None:
    for image in (LAMBDA, CLOUD_RUN):
        ours, demo = inspect(f"{image}:{images.name}"), inspect(image)
        assert ours["Labels"]["kindling.model.id"] == images.name
        for key in ("Cmd", "Entrypoint", "Env", "User"):
            assert ours[key] == demo[key]
