"""The Cloud Run files, against Knative's schema and against the image that they run."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from handlers.api.routes import HEALTH_PATHS
from handlers.config import Settings
from tests.support.aws_events import HttpCall
from tests.support.servers import cloud_run

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "cloudrun"
SCHEMA = json.loads(Path(__file__).with_name("knative_service.json").read_text())

# Of `gcloud`, what it is called with: one line a call; it finds nothing that one could describe.
GCLOUD = """#!/bin/sh
echo "$@" >> "$GCLOUD_LOG"
case "$*" in *" describe "*) exit 1;; esac
"""


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.fixture
def service() -> Any:
    return read("service.yaml")


@pytest.fixture
def container(service: Any) -> Any:
    (container,) = service["spec"]["template"]["spec"]["containers"]
    return container


def plain_environment(container: Any) -> dict[str, str]:
    return {
        variable["name"]: variable.get("value", "sesame")  # a secret is filled in by the platform
        for variable in container["env"]
    }


def test_the_service_keeps_to_knatives_schema(service: Any) -> None:
    jsonschema.validate(service, SCHEMA, jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda spec: spec.update(containerConcurrency="4"),
        lambda spec: spec.update(concurrency=4),
        lambda spec: spec["containers"][0].update(startupprobe={}),
        lambda spec: spec["containers"][0]["env"][0].update(value=4),
        lambda spec: spec["containers"][0]["resources"]["limits"].update(memory="1 GB"),
    ],
)
def test_the_schema_finds_a_mistake(service: Any, spoil: Any) -> None:
    spoil(service["spec"]["template"]["spec"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(service, SCHEMA, jsonschema.Draft202012Validator)


def test_as_many_requests_are_let_in_as_run_at_once(service: Any, container: Any) -> None:
    settings = Settings.from_environ(plain_environment(container))
    assert service["spec"]["template"]["spec"]["containerConcurrency"] == settings.slots


def test_an_answer_ends_before_cloud_run_ends_the_request(service: Any, container: Any) -> None:
    settings = Settings.from_environ(plain_environment(container))
    assert settings.timeout_seconds < service["spec"]["template"]["spec"]["timeoutSeconds"] <= 3600


def test_the_port_is_the_one_that_the_image_opens(container: Any) -> None:
    ((port,),) = [[port["containerPort"] for port in container["ports"]]]
    assert port == Settings.from_environ({}).port
    dockerfile = (ROOT / "Dockerfile.cloudrun").read_text()
    assert "EXPOSE" not in dockerfile
    assert "ENV PORT" not in dockerfile
    assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "livenessProbe")} == {
        port
    }


def test_the_image_starts_its_own_command(container: Any) -> None:
    assert "command" not in container
    assert "args" not in container
    dockerfile = (ROOT / "Dockerfile.cloudrun").read_text()
    assert 'ENTRYPOINT ["python", "-m", "handlers.cloud_run"]' in dockerfile


def test_the_process_answers_its_probes_as_the_service_sets_it_up(
    container: Any, tiny_artifact: Path, directory: Path
) -> None:
    with cloud_run(tiny_artifact, directory, **plain_environment(container)) as server:
        for probe in ("startupProbe", "livenessProbe"):
            path = container[probe]["httpGet"]["path"]
            assert path in HEALTH_PATHS
            assert server.send(HttpCall("GET", path)).status == 200
        assert server.post("/v1/chat/completions", {}).status == 401


def test_a_start_has_as_long_as_cloud_run_allows(container: Any) -> None:
    probe = container["startupProbe"]
    assert probe["timeoutSeconds"] <= probe["periodSeconds"]
    assert probe["periodSeconds"] * probe["failureThreshold"] == 240


def test_every_setting_is_one_that_the_image_reads(container: Any) -> None:
    described = (ROOT / "handlers" / "config.py").read_text()
    for name in plain_environment(container) | bucket_environment():
        assert f"| {name} |" in described


def bucket_environment() -> dict[str, str]:
    (container,) = read("service-bucket.yaml")["spec"]["template"]["spec"]["containers"]
    return plain_environment(container)


def test_the_bucket_variant_is_the_service_with_a_read_only_volume(service: Any) -> None:
    variant = read("service-bucket.yaml")
    spec = variant["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (volume,) = spec.pop("volumes")
    (mount,) = container.pop("volumeMounts")
    model_dir = {"name": "MODEL_DIR", "value": mount["mountPath"]}
    container["env"].remove(model_dir)
    assert variant == service
    assert volume["name"] == mount["name"]
    assert volume["csi"] == {
        "driver": "gcsfuse.run.googleapis.com",
        "readOnly": True,
        "volumeAttributes": {"bucketName": "BUCKET"},
    }
    annotations = service["spec"]["template"]["metadata"]["annotations"]
    assert annotations["run.googleapis.com/execution-environment"] == "gen2"  # volumes need it


def substituted(build: Any, **given: str) -> Any:
    """Cloud Build's own substitutions, as dynamicSubstitutions has them: also in one another."""
    assert build["options"]["dynamicSubstitutions"] is True
    values = build["substitutions"] | {"PROJECT_ID": "mine", "BUILD_ID": "b1"} | given
    text = json.dumps(build)
    for _ in range(3):
        for name, value in values.items():
            text = text.replace(f"${{{name}}}", value)
    return json.loads(text)


def run_with_gcloud(
    tmp_path: Path, command: list[str], **environ: str
) -> tuple[list[str], subprocess.CompletedProcess[str]]:
    program = tmp_path / "gcloud"
    program.write_text(GCLOUD)
    program.chmod(0o755)
    log = tmp_path / "log"
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={"PATH": path, "GCLOUD_LOG": str(log), **environ},
        capture_output=True,
        text=True,
        check=True,
    )
    return log.read_text().splitlines(), done


@pytest.mark.parametrize("name", ["service.yaml", "service-bucket.yaml"])
def test_the_build_fills_in_the_service_and_deploys_it(name: str, tmp_path: Path) -> None:
    build = substituted(read("cloudbuild.yaml"), _SERVICE=name, _BUCKET="models")
    built, pushed, deployed = build["steps"]
    image = "us-central1-docker.pkg.dev/mine/kindling/kindling-cloudrun:b1"
    assert (ROOT / built["args"][built["args"].index("--file") + 1]).is_file()
    assert image in built["args"]
    assert pushed["args"] == ["push", image]
    assert build["images"] == [image]
    script = deployed["args"][-1].replace("/workspace/", f"{tmp_path}/")
    assert not re.search(r"\$[^ ]", script)
    calls, _ = run_with_gcloud(tmp_path, ["bash", *deployed["args"][:-1], script])
    file = tmp_path / "deployed.yaml"
    assert calls == [f"run services replace {file} --region us-central1 --quiet"]
    spec = yaml.safe_load(file.read_text())["spec"]["template"]["spec"]
    assert spec["containers"][0]["image"] == image
    assert spec["serviceAccountName"] == "kindling@mine.iam.gserviceaccount.com"
    assert not re.search("IMAGE$|SERVICE_ACCOUNT$|BUCKET$", file.read_text(), re.MULTILINE)


@pytest.mark.parametrize("model", ["export", "outside"])
def test_the_build_puts_a_model_into_the_image_unless_it_lies_outside(model: str) -> None:
    given = {} if model == "export" else {"_MODEL": model}
    arguments = substituted(read("cloudbuild.yaml"), **given)["steps"][0]["args"]
    assert f"MODEL={model}" in arguments
    assert f" AS {model}\n" in (ROOT / "Dockerfile.cloudrun").read_text()


@pytest.mark.parametrize("transformers", ["", "5"])
def test_the_build_exports_with_the_transformers_that_its_recipe_takes(transformers: str) -> None:
    given = {"_TRANSFORMERS": transformers} if transformers else {}
    arguments = substituted(read("cloudbuild.yaml"), **given)["steps"][0]["args"]
    (name,) = [part for part in arguments if part.startswith("TRANSFORMERS=")]
    assert name == f"TRANSFORMERS={transformers}"
    assert (ROOT / "requirements" / f"exporter{transformers}.lock").is_file()
    assert (ROOT / "requirements" / f"cloudrun{transformers}.lock").is_file()


def test_setup_makes_what_the_build_and_the_service_name(tmp_path: Path, service: Any) -> None:
    calls, done = run_with_gcloud(tmp_path, [str(FOLDER / "setup"), "mine", "europe-west1"])
    assert all(call.endswith("--project mine --quiet") for call in calls)
    joined = "\n".join(calls)
    assert "repositories create kindling --location europe-west1" in joined
    secret = json.dumps(service)
    assert '"secretKeyRef": {"name": "kindling-api-key", "key": "latest"}' in secret
    assert "secrets create kindling-api-key --data-file -" in joined
    build = substituted(read("cloudbuild.yaml"))
    for account in (build["substitutions"]["_SERVICE_ACCOUNT"], build["serviceAccount"]):
        assert f"service-accounts create {account.rpartition('/')[2].partition('@')[0]} " in joined
    assert "Ready." in done.stdout


def test_setup_leaves_alone_what_exists(tmp_path: Path) -> None:
    everything = GCLOUD.replace("exit 1", "exit 0")
    program = tmp_path / "other"
    program.mkdir()
    (program / "gcloud").write_text(everything)
    (program / "gcloud").chmod(0o755)
    environ = {
        "PATH": f"{program}:{os.environ['PATH']}",
        "GCLOUD_LOG": str(tmp_path / "log"),
    }
    subprocess.run([str(FOLDER / "setup"), "mine"], env=environ, check=True, capture_output=True)
    assert " create " not in (tmp_path / "log").read_text()
