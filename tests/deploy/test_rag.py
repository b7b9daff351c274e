"""docs/rag.md's commands that deploy its two servers, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.deploy.conftest import Account

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "rag.md").read_text()
BLOCKS: list[str] = [
    text for _, text in re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
]
SCHEMA = json.loads(Path(__file__).with_name("knative_service.json").read_text())
NAMES = ["embeddings", "chat"]

# Writes down its own name and what it is called with.
PROGRAM = """#!/bin/sh
echo "${0##*/} $@" >> "$LOG"
"""


def block(command: str) -> str:
    """The one that has it."""
    (found,) = [text for text in BLOCKS if command in text]
    return found


def test_the_images_that_are_deployed_are_those_that_the_page_builds() -> None:
    built = block("make images")
    assert re.findall(r"make images .*TAG=(\w+)", built) == NAMES
    assert re.findall(r"docker run .* kindling-cloudrun:(\w+)", built) == NAMES


def test_lambdas_commands_make_two_functions_that_want_the_key(account: Account) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    planned = subprocess.run(
        ["sh", "-ec", block("make deploy-lambda")],
        cwd=ROOT,
        env=environ | {"MAKEFLAGS": "n"},
        capture_output=True,
        text=True,
        check=True,
    )
    commands = [
        shlex.split(line.partition("-m deploy.aws ")[2])
        for line in planned.stdout.splitlines()
        if "-m deploy.aws " in line
    ]
    assert [command[3] for command in commands] == [f"kindling-lambda:{name}" for name in NAMES]
    for name, command in zip(NAMES, commands, strict=True):
        account.run(*command)
        function = {"FunctionName": f"kindling-{name}"}
        url = account.client("lambda").get_function_url_config(**function)
        assert url["AuthType"] == "NONE"
        found = account.client("lambda").get_function(**function)
        assert f"/kindling-{name}@sha256:" in found["Code"]["ImageUri"]
        assert "KINDLING_API_KEY" in found["Configuration"]["Environment"]["Variables"]


@pytest.mark.parametrize("name", NAMES)
def test_cloud_runs_commands_push_and_deploy_the_file_of_the_service(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    for program in ("docker", "gcloud"):
        (tmp_path / program).write_text(PROGRAM)
        (tmp_path / program).chmod(0o755)
    environ = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LOG": str(tmp_path / "log")}
    command = ["sh", "-euc", block("gcloud")]
    environ |= {"PROJECT": "mine", "REGION": "europe-west1"}
    subprocess.run(command, cwd=tmp_path, env=environ, check=True)
    image = f"europe-west1-docker.pkg.dev/mine/kindling/kindling-cloudrun:{name}"
    place = "--region europe-west1 --project mine"
    everyone = "--member allUsers --role roles/run.invoker"
    called = [line for line in (tmp_path / "log").read_text().splitlines() if name in line]
    assert called == [
        f"docker tag kindling-cloudrun:{name} {image}",
        f"docker push {image}",
        f"gcloud run services replace {name}.yaml {place}",
        f"gcloud run services add-iam-policy-binding kindling-{name} {place} {everyone}",
    ]
    deployed = yaml.safe_load((tmp_path / f"{name}.yaml").read_text())
    jsonschema.validate(deployed, SCHEMA, jsonschema.Draft202012Validator)
    expected = yaml.safe_load((ROOT / "deploy" / "cloudrun" / "service.yaml").read_text())
    expected["metadata"]["name"] = f"kindling-{name}"
    spec = expected["spec"]["template"]["spec"]
    spec["serviceAccountName"] = "kindling@mine.iam.gserviceaccount.com"
    spec["containers"][0]["image"] = image
    assert deployed == expected
