"""Tests what a change builds anew, read from BuildKit's own account of its steps.

Each test builds a copy of the context with one file changed as it never was before. None waits
for an export: the recipe that changes is broken, so that its export ends at once.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import uuid
from pathlib import Path

import pytest

from tests.images.docker import DOCKER, docker
from tests.images.tiny_recipes import copied_context

STEP = re.compile(r"^#(?P<number>\d+) \[.+\] (?P<command>.*)$", re.MULTILINE)

TORCH, PIP_OF_EXPORT = "python scripts/install_torch.py", "-r requirements/exporter"
EXPORT = "python -m model_export"
PIP_OF_DEPS, CODE = "--target /deps", "compileall -q --invalidation-mode unchecked-hash /code"


@pytest.fixture
def context(tmp_path: Path) -> Path:
    return copied_context(tmp_path)


def build(context: Path, cloud: str, *arguments: str) -> str:
    """BuildKit's progress. The image is removed; what it was made of stays in the cache."""
    options = shlex.split(os.environ.get("DOCKER_OPTIONS", ""))
    command = [DOCKER, "build", "--progress", "plain", *options]
    built = context.parent / f"{context.name}.image"
    command += ["--iidfile", str(built), "--build-arg", "RECIPE=smollm2-135m"]
    command += [part for argument in arguments for part in ("--build-arg", argument)]
    command += ["--file", f"Dockerfile.{cloud}", str(context)]
    environ = os.environ | {"DOCKER_BUILDKIT": "1", "BUILDX_NO_DEFAULT_ATTESTATIONS": "1"}
    done = subprocess.run(
        command, cwd=context, env=environ, capture_output=True, text=True, check=False
    )
    if built.exists():
        docker("rmi", built.read_text())
    return done.stdout + done.stderr


def cached(progress: str, command: str) -> bool:
    """Returns whether the step came from the cache. Raises LookupError where there is none."""
    for step in STEP.finditer(progress):
        if command in step["command"]:
            return f"#{step['number']} CACHED" in progress
    raise LookupError(f"No step has {command!r}:\n{progress}")


@pytest.mark.parametrize("cloud", ["lambda", "cloudrun"])
def test_a_changed_handler_runs_neither_pip_nor_the_export(context: Path, cloud: str) -> None:
    with (context / "handlers" / "aws_lambda" / "function.py").open("a") as source:
        source.write(f"# {uuid.uuid4()}\n")
    progress = build(context, cloud)
    assert all(cached(progress, step) for step in (TORCH, PIP_OF_EXPORT, EXPORT, PIP_OF_DEPS))
    assert not cached(progress, CODE)
    assert "writing image" in progress or "exporting manifest" in progress


def test_changed_dependencies_of_the_runtime_run_no_export(context: Path) -> None:
    with (context / "requirements" / "lambda.lock").open("a") as lock:
        lock.write(f"# {uuid.uuid4()}\n")
    progress = build(context, "lambda")
    assert cached(progress, PIP_OF_EXPORT)
    assert cached(progress, EXPORT)
    assert not cached(progress, PIP_OF_DEPS)


def test_changed_dependencies_of_the_other_transformers_run_nothing(context: Path) -> None:
    for name in ("exporter5", "lambda5"):
        with (context / "requirements" / f"{name}.lock").open("a") as lock:
            lock.write(f"# {uuid.uuid4()}\n")
    progress = build(context, "lambda")
    assert all(cached(progress, step) for step in (TORCH, PIP_OF_EXPORT, EXPORT, PIP_OF_DEPS, CODE))


def test_an_export_with_the_other_transformers_has_the_same_torch(context: Path) -> None:
    (context / "requirements" / "exporter5.lock").write_text("this is no lock")
    progress = build(context, "lambda", "TRANSFORMERS=5")
    assert cached(progress, TORCH)
    assert not cached(progress, PIP_OF_EXPORT)
    assert "this is no lock" in progress


def test_a_changed_recipe_runs_no_pip(context: Path) -> None:
    recipe = context / "model_export" / "recipes" / "smollm2-135m.toml"
    recipe.write_text("this is no recipe")
    progress = build(context, "lambda")
    assert cached(progress, PIP_OF_EXPORT)
    assert not cached(progress, EXPORT)
    assert "smollm2-135m.toml" in progress


@pytest.mark.parametrize("cloud", ["lambda", "cloudrun"])
def test_an_image_without_a_model_exports_nothing_and_brings_obstore(
    context: Path, cloud: str
) -> None:
    progress = build(context, cloud, "MODEL=outside")
    with pytest.raises(LookupError):
        cached(progress, EXPORT)
    assert "remote='-r /build/remote.lock'" in progress
    assert "writing image" in progress or "exporting manifest" in progress
