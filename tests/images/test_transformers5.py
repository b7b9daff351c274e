"""The images of a model that transformers 4 does not have, by a recipe that says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.images import docker
from tests.images.docker import CLOUD_RUN, LAMBDA, OFFLINE, READ_ONLY, inside
from tests.images.tiny_recipes import NEWER
from tests.support.servers import cloud_run

CHAT = "/v1/chat/completions"
QUESTION = {"messages": [{"role": "user", "content": "Größe?"}], "temperature": 0, "max_tokens": 40}

VERSIONS = """
import importlib.metadata, json
manifest = json.load(open("/opt/kindling/model/manifest.json"))
print(json.dumps([manifest["versions"], {
    name: importlib.metadata.version(name) for name in ("onnxruntime", "tokenizers")
}]))
"""


@pytest.mark.parametrize(
    ("tag", "transformers"), [("latest", "4."), (NEWER, "5.")], ids=["transformers4", "newer"]
)
@pytest.mark.parametrize("image", [LAMBDA, CLOUD_RUN])
def test_an_image_serves_with_the_versions_that_its_model_was_proved_with(
    tiny_images: None, image: str, tag: str, transformers: str
) -> None:
    proved, serves = json.loads(inside(f"{image}:{tag}", VERSIONS))
    assert proved["transformers"].startswith(transformers)
    assert serves == {name: proved[name] for name in serves}


def test_both_images_answer_as_the_code_outside_does(
    tiny_images: None, directory: Path, tmp_path: Path
) -> None:
    on_lambda, on_cloud_run = f"{LAMBDA}:{NEWER}", f"{CLOUD_RUN}:{NEWER}"
    model = docker.copied_model(on_lambda, tmp_path)
    assert json.loads((model / "manifest.json").read_bytes())["model"]["architecture"] == (
        "Ministral3ForCausalLM"
    )
    with cloud_run(model, directory) as outside:
        expected = outside.post(CHAT, QUESTION).json()
    assert expected["usage"]["completion_tokens"] > 10
    with docker.aws_lambda(*OFFLINE, *READ_ONLY, image=on_lambda) as function:
        assert function.invoke(QUESTION)["choices"] == expected["choices"]
    with docker.cloud_run(*OFFLINE, *READ_ONLY, image=on_cloud_run) as service:
        assert json.loads(service.ask("POST", CHAT, QUESTION))["choices"] == expected["choices"]
