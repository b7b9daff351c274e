"""The images of a model that embeds, on both clouds, where `make images` has built them so:

make images RECIPE=all-minilm-l6-v2 TAG=all-minilm-l6-v2
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openai
import pytest

from scripts.images import inspect
from tests.images import docker
from tests.images.docker import (
    CLOUD_RUN,
    EMBEDDINGS,
    LAMBDA,
    OFFLINE,
    PUBLISHED,
    READ_ONLY,
    Container,
)
from tests.support.openai_clients import openai_client
from tests.support.servers import CloudRun, cloud_run

ON_LAMBDA, ON_CLOUD_RUN = f"{LAMBDA}:{EMBEDDINGS}", f"{CLOUD_RUN}:{EMBEDDINGS}"
TEXTS = ["A kettle sings when the water boils.", "Steam makes the teapot whistle.", "Tax law."]


@pytest.fixture(scope="module", autouse=True)
def built() -> None:
    try:
        docker.docker("image", "inspect", ON_LAMBDA, ON_CLOUD_RUN)
    except RuntimeError:
        pytest.fail(f"Build it first: make images RECIPE={EMBEDDINGS} TAG={EMBEDDINGS}")


@pytest.fixture(scope="module")
def on_lambda(built: None) -> Iterator[Container]:
    with docker.aws_lambda(*OFFLINE, *READ_ONLY, image=ON_LAMBDA) as container:
        yield container


@pytest.fixture(scope="module")
def client(built: None) -> Iterator[openai.OpenAI]:
    """OpenAI's own, over a published port of Cloud Run's image."""
    with (
        docker.cloud_run(*READ_ONLY, *PUBLISHED, image=ON_CLOUD_RUN) as container,
        openai.OpenAI(base_url=f"{container.url}/v1", api_key="unused") as client,
    ):
        yield client


@pytest.fixture(scope="module")
def outside(
    built: None, directory: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CloudRun]:
    model = docker.copied_model(ON_CLOUD_RUN, tmp_path_factory.mktemp("embeddings"))
    with cloud_run(model, directory) as server:
        yield server


def test_openais_client_gets_the_vectors_that_the_code_outside_gives(
    client: openai.OpenAI, outside: CloudRun
) -> None:
    answer = client.embeddings.create(model="any", input=TEXTS)
    with openai_client(outside) as asking:
        expected = asking.embeddings.create(model="any", input=TEXTS)
    vectors = np.array([item.embedding for item in answer.data])
    np.testing.assert_allclose(vectors, [item.embedding for item in expected.data], atol=1e-6)
    assert answer.usage == expected.usage
    likeness = vectors @ vectors.T
    np.testing.assert_allclose(np.diagonal(likeness), 1, atol=1e-5)
    assert likeness[0, 1] > 0.5 > likeness[0, 2]


def test_lambda_gives_the_same_vectors(on_lambda: Container, client: openai.OpenAI) -> None:
    status, answer = on_lambda.on_function_url("/v1/embeddings", {"input": TEXTS})
    expected = client.embeddings.create(model="any", input=TEXTS)
    assert status == 200
    vectors = [item["embedding"] for item in answer["data"]]
    np.testing.assert_allclose(vectors, [item.embedding for item in expected.data], atol=1e-6)


def test_a_route_of_another_task_is_404_and_says_which_task_the_image_has(
    on_lambda: Container, client: openai.OpenAI
) -> None:
    status, answer = on_lambda.on_function_url("/v1/chat/completions", {"messages": []})
    with pytest.raises(openai.NotFoundError, match="feature-extraction"):
        client.chat.completions.create(model="any", messages=[])
    assert status == 404
    assert "feature-extraction" in answer["error"]["message"]


@pytest.mark.parametrize("image", [LAMBDA, CLOUD_RUN])
def test_it_is_labelled_as_what_it_holds_and_starts_as_the_demos_image_does(image: str) -> None:
    ours, demo = inspect(f"{image}:{EMBEDDINGS}"), inspect(image)
    assert ours["Labels"]["kindling.model.id"] == "all-MiniLM-L6-v2"
    for key in ("Cmd", "Entrypoint", "Env", "User"):
        assert ours[key] == demo[key]
