"""Tests what the images hold, and what they do without."""

from __future__ import annotations

import hashlib
import json

import pytest

from handlers import __version__
from scripts.images import inspect, layers
from tests.images.docker import CLOUD_RUN, LAMBDA, inside

both = pytest.mark.parametrize("image", [LAMBDA, CLOUD_RUN])
LIMIT_BYTES = 230_000_000

MODULES = """
import importlib.util
names = "pip ensurepip torch transformers optimum onnx numpy onnxruntime handlers".split()
print(*(name for name in [*names, "model_export"] if importlib.util.find_spec(name)))
"""

PROGRAMS = """
import shutil
names = "pip pip3 gcc cc g++ clang ld make cmake rustc git curl".split()
print(*(name for name in names if shutil.which(name)))
"""

# A pyc's second word: 1 is "made from a source by its hash, which is never checked" (PEP 552).
UNCOMPILED = """
import importlib.util, pathlib, sysconfig
for root in (sysconfig.get_path("stdlib"), "/opt/kindling"):
    for source in pathlib.Path(root).rglob("*.py"):
        if {"test", "tests", "lib2to3"} & set(source.parts) or "dist-packages" in source.parts:
            continue
        compiled = pathlib.Path(importlib.util.cache_from_source(source))
        if not compiled.exists() or compiled.read_bytes()[4:8] != bytes([1, 0, 0, 0]):
            print(source)
"""

UNREADABLE = """
import os, sysconfig
for top in ("/opt/kindling", sysconfig.get_path("stdlib")):
    for root, _, names in os.walk(top):
        if os.stat(root).st_mode & 0o005 != 0o005:
            print(root)
        for name in names:
            path = os.path.join(root, name)
            if not os.lstat(path).st_mode & 0o004:
                print(path)
"""

UNLICENSED = """
import importlib.metadata
for found in importlib.metadata.distributions(path=["/opt/kindling/deps"]):
    files = [*(found.files or ()), *found._path.rglob("*")]
    if not any("licen" in path.name.lower() for path in files):
        print(found.name)
"""

UNUSED = """
import pathlib
print(*pathlib.Path("/opt/kindling").rglob("libonnxruntime.so*"))
print(*(path for path in pathlib.Path("/opt/kindling/deps/onnxruntime").iterdir()
        if path.name in ("transformers", "quantization", "tools")))
"""


@both
def test_there_is_no_pip_no_torch_and_no_compiler(image: str) -> None:
    assert inside(image, MODULES).split() == ["numpy", "onnxruntime", "handlers"]
    assert inside(image, PROGRAMS).split() == []


@both
def test_what_a_server_never_reads_is_left_out(image: str) -> None:
    assert inside(image, UNUSED).split() == []


@both
def test_all_python_is_compiled_and_its_sources_are_never_checked(image: str) -> None:
    assert inside(image, UNCOMPILED).split() == []


@both
def test_any_user_can_read_every_file(image: str) -> None:
    assert inside(image, UNREADABLE).split() == []


@both
def test_every_package_and_the_model_bring_their_licence(image: str) -> None:
    assert inside(image, UNLICENSED).split() == []
    read = "print(*(len(open(f'/opt/kindling/{place}LICENSE').read()) for place in ('', 'model/')))"
    assert min(map(int, inside(image, read).split())) > 1000


@both
def test_without_base_and_model_an_image_stays_within_its_limit(image: str) -> None:
    sizes = dict(layers(image))
    assert all(sizes.values())
    ours = sum(size for what, size in sizes.items() if what not in ("base", "model"))
    assert ours <= LIMIT_BYTES


@both
def test_the_labels_say_what_is_inside(image: str) -> None:
    text = inside(image, "print(open('/opt/kindling/model/manifest.json').read(), end='')")
    labels, manifest = inspect(image)["Labels"], json.loads(text)
    assert labels["kindling.manifest.sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert labels["kindling.model.id"] == manifest["model"]["id"]
    assert labels["kindling.precision"] == manifest["precision"]
    assert labels["org.opencontainers.image.title"] == image
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"] == __version__
    assert len(labels["org.opencontainers.image.revision"].removesuffix("-dirty")) == 40


def test_lambda_may_snapshot_its_image() -> None:
    assert inspect(LAMBDA)["Labels"]["com.amazonaws.lambda.feature.snapstart"] == "Allow"


def test_cloud_runs_process_is_nobodys_and_no_shell_starts_it() -> None:
    assert inspect(CLOUD_RUN)["User"] == "65534:65534"
    assert inspect(CLOUD_RUN)["Entrypoint"] == ["python", "-m", "handlers.cloud_run"]
    assert inspect(LAMBDA)["Entrypoint"] == ["python", "-m", "awslambdaric"]
