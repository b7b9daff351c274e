"""An image serves the paths of its task, and says of the others what they need."""

from __future__ import annotations

import subprocess
import sys

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from handlers.api.routes import ROUTES
from handlers.artifact.manifest import Task
from tests.api.client import Client, saying
from tests.api.encoder_client import EncoderClient, ids_of
from tests.support.encoder_tasks import ENCODER_TASKS

OTHERS = [(task, path) for task in ENCODER_TASKS for path in ROUTES["text-generation"]]


@pytest.mark.parametrize(
    ("task", "path"), [each for each in OTHERS if each[1] not in ROUTES[each[0]]]
)
def test_an_encoder_says_which_task_a_decoders_path_needs(task: Task, path: str) -> None:
    status, error = EncoderClient(task).error("POST", path, {})

    kind = "not_found_error" if path.startswith("/v1/messages") else "not_found"
    assert (status, error.get("code", error["type"])) == (404, kind)
    assert error["message"].startswith(
        f"This image serves the task {task} with Tiny; {path} needs text-generation. Paths: /v1/"
    )


@pytest.mark.parametrize(
    ("path", "task"),
    [
        ("/v1/embeddings", "feature-extraction"),
        ("/v1/classify", "text-classification"),
        ("/v1/rerank", "text-ranking"),
        ("/rerank", "text-ranking"),
    ],
)
def test_a_decoder_says_which_task_an_encoders_path_needs(path: str, task: str) -> None:
    status, error = Client(saying("yes")).error("POST", path, {"input": "Paris"})

    assert status == 404
    assert f"serves the task text-generation with Tiny; {path} needs {task}." in error["message"]


@pytest.mark.parametrize("task", ENCODER_TASKS)
def test_health_and_models_tell_of_an_encoder(task: Task) -> None:
    encoder = EncoderClient(task)
    health = encoder.json("GET", "/healthz")

    assert health["task"] == task
    assert health["context_length"] == 600
    assert "slots" not in health
    assert encoder.json("GET", "/v1/models/Tiny")["context_length"] == 600


@pytest.mark.parametrize("task", ENCODER_TASKS)
def test_an_encoder_counts_tokens_and_spells_them(task: Task) -> None:
    encoder = EncoderClient(task)
    answer = encoder.json("POST", "/tokenize", {"prompt": "Paris"})

    assert answer["tokens"] == ids_of(["Paris"])[0]
    assert encoder.json("POST", "/tokenize", {"content": "Paris"})["count"] == answer["count"] - 2
    text = encoder.json("POST", "/detokenize", {"tokens": answer["tokens"]})
    assert text["prompt"].startswith("[CLS]")


@pytest.mark.parametrize(
    "body", [{}, {"prompt": "a", "content": "a"}, {"messages": [{"role": "user"}]}]
)
def test_an_encoder_tokenises_one_text_and_no_chat(body: dict[str, object]) -> None:
    status, _ = EncoderClient("text-ranking").error("POST", "/tokenize", body)

    assert status == 400


@pytest.mark.parametrize("task", ROUTES)
def test_the_document_has_the_paths_of_the_task_and_is_valid(task: Task) -> None:
    client = Client(saying("")) if task == "text-generation" else EncoderClient(task)
    document = client.json("GET", "/openapi.json")

    OpenAPIV31SpecValidator(document).validate()
    described = {
        (path, method.upper()) for path, all_ in document["paths"].items() for method in all_
    }
    assert described == {
        (path, method) for path, route in ROUTES[task].items() for method in route.methods
    }


@pytest.mark.parametrize("task", ROUTES)
def test_every_operation_of_a_task_has_an_id_of_its_own(task: Task) -> None:
    operations = [each for route in ROUTES[task].values() for each in route.operations]

    assert len({operation.id for operation in operations}) == len(operations)


@pytest.mark.parametrize("task", ROUTES)
def test_every_endpoint_of_a_task_can_be_imported(task: Task) -> None:
    assert all(callable(route.load()) for route in ROUTES[task].values())


DECODERS = {
    "jinja2",
    "handlers.text.chat_template",
    "handlers.engine.sampling",
    "handlers.api.endpoints.chat",
}
DECODERS |= {"handlers.engine.engine", "handlers.text.completion", "handlers.api.generation"}


@pytest.mark.parametrize("task", ENCODER_TASKS)
def test_what_an_encoder_needs_imports_nothing_of_a_decoders(task: Task) -> None:
    program = (
        "import sys\n"
        "from handlers.api.routes import ROUTES\n"
        "import handlers.api.model, handlers.encoder.encoder, handlers.encoder.session\n"
        f"for route in ROUTES[{task!r}].values():\n"
        "    route.load()\n"
        f"print(sorted({DECODERS} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_what_a_decoder_needs_imports_nothing_of_an_encoders() -> None:
    program = (
        "import sys\n"
        "from handlers.api.routes import preload\n"
        "import handlers.api.model, handlers.engine.engine, handlers.engine.session\n"
        "preload('text-generation')\n"
        "print([name for name in sys.modules if 'encod' in name and name.startswith('handlers')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
