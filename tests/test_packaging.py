"""Tests what `pip install .` brings, and that the locks say what pyproject.toml says."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import tomllib
from datetime import date
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from handlers import __version__

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXPORT = PROJECT["project"]["optional-dependencies"]["export"]
REMOTE = PROJECT["project"]["optional-dependencies"]["remote"]
EXPORT5 = PROJECT["project"]["optional-dependencies"]["export-transformers5"]
GROUPS = PROJECT["dependency-groups"]
DEV = GROUPS["dev"] + GROUPS["deploy"]
# What each lock holds besides the runtime's dependencies.
LOCKS = {
    "runtime.lock": [],
    "export.txt": EXPORT + GROUPS["demo"],
    "dev.txt": EXPORT + REMOTE + GROUPS["demo"] + DEV,
    "bench.txt": EXPORT + REMOTE + GROUPS["demo"] + DEV + GROUPS["bench"],
    "transformers5.txt": EXPORT5 + GROUPS["demo"] + GROUPS["test-transformers5"],
}
APART = "transformers5.txt"
# What an image or its export installs -> the lock that it is a part of.
IMAGES = {
    "lambda.lock": "runtime.lock",
    "cloudrun.lock": "runtime.lock",
    "lambda5.lock": APART,
    "cloudrun5.lock": APART,
}
EXPORTERS = {"exporter.lock": "export.txt", "exporter5.lock": APART}
OTHERS = [*IMAGES, *EXPORTERS, "remote.lock", "deploy.txt"]
PIN = re.compile(r"^(?P<name>[\w.-]+)==(?P<version>[\w.]+)(?P<rest>.*(?:\n[ ]+.*)*)", re.MULTILINE)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> ZipFile:
    """The wheel of this tree, as `pip install .` would build it."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return ZipFile(next(directory.glob("*.whl")))


def test_the_wheel_has_the_version_that_the_code_tells(wheel: ZipFile) -> None:
    assert metadata(wheel)["Version"] == __version__


def test_the_newest_version_in_the_changelog_is_that_of_the_code() -> None:
    headings = re.findall(
        r"^## \[(.+)\] - (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    version, day = headings[0]
    assert version == __version__
    assert date.fromisoformat(day).isoformat() == day


def test_the_wheel_never_asks_for_torch_outside_the_export_extra(wheel: ZipFile) -> None:
    required = {
        requirement.name
        for requirement in map(Requirement, metadata(wheel).get_all("Requires-Dist", []))
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    }
    assert "onnxruntime" in required
    assert required.isdisjoint({"torch", "transformers", "optimum", "onnx"})


def test_the_wheel_holds_both_packages_with_recipes_and_corpus_and_nothing_else(
    wheel: ZipFile,
) -> None:
    files = {path for path in wheel.namelist() if ".dist-info/" not in path}
    assert {path.split("/")[0] for path in files} == {"handlers", "model_export"}
    recipes = sorted((ROOT / "model_export" / "recipes").glob("*.toml"))
    assert recipes
    assert files >= {str(path.relative_to(ROOT)) for path in recipes}
    corpus = [path for path in (ROOT / "model_export" / "corpus").iterdir() if path.is_file()]
    assert len(corpus) >= 3
    assert files >= {str(path.relative_to(ROOT)) for path in corpus}


def test_a_wheel_with_compiled_c_is_for_its_kind_of_machine_alone(wheel: ZipFile) -> None:
    libraries = {path for path in wheel.namelist() if path.endswith(".so")}
    assert libraries == {"handlers/engine/kernels.so", "model_export/quantize/search_affine.so"}
    path = next(path for path in wheel.namelist() if path.endswith(".dist-info/WHEEL"))
    tags = message_from_bytes(wheel.read(path)).get_all("Tag")
    assert tags == [f"py3-none-manylinux_2_28_{platform.machine()}"]


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_each_declared_dependency_within_its_range(lock: str) -> None:
    declared = {
        str(canonicalize_name(requirement.name)): requirement
        for requirement in map(Requirement, PROJECT["project"]["dependencies"] + LOCKS[lock])
        if requirement.name != "torch"
    }
    pinned = {name for name, _, rest in pins(lock) if "kindling (pyproject.toml" in rest}
    assert pinned == set(declared)
    for name, version, _ in pins(lock):
        assert name not in declared or declared[name].specifier.contains(version), name


@pytest.mark.parametrize("lock", [*LOCKS, *OTHERS])
def test_a_lock_has_a_hash_for_every_pin_and_names_no_index(lock: str) -> None:
    assert all("--hash=sha256:" in rest for _, _, rest in pins(lock))
    assert not re.search(
        r"https?://|--index|--find-links", (ROOT / "requirements" / lock).read_text()
    )


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_brings_torch_or_cuda_or_a_compiler_job(lock: str) -> None:
    unwanted = re.compile(r"torch|triton|nvidia-|cuda-|llama-cpp-python")
    assert not [name for name, _, _ in pins(lock) if unwanted.match(name)]


def test_the_torch_that_make_installs_is_the_one_that_the_export_extra_names() -> None:
    pin = (ROOT / "requirements" / "torch.txt").read_text()
    assert pin.splitlines() == [line for line in EXPORT if Requirement(line).name == "torch"]


@pytest.mark.parametrize(("lock", "whole"), IMAGES.items())
def test_an_image_installs_nothing_but_what_the_runtime_locks(lock: str, whole: str) -> None:
    installed = {(name, version) for name, version, _ in pins(lock)}
    assert installed < {(name, version) for name, version, _ in pins(whole)}
    assert {"onnxruntime", "numpy", "tokenizers", "msgspec"} < {name for name, _ in installed}


@pytest.mark.parametrize(("lock", "whole"), EXPORTERS.items())
def test_the_images_export_installs_what_the_export_locks_but_for_the_adapters_packages(
    lock: str, whole: str
) -> None:
    """So that a new version of one of these exports no model anew."""
    locked = {(name, version) for name, version, _ in pins(whole)}
    installed = {(name, version) for name, version, _ in pins(lock)}
    assert installed < locked
    adapters = {
        "awslambdaric",
        "functions-framework",
        "flask",
        "starlette",
        "uvicorn",
        "llguidance",
    }
    assert adapters <= {name for name, _ in locked - installed}


@pytest.mark.parametrize("image", ["lambda", "cloudrun"])
def test_an_image_has_the_packages_that_its_model_was_proved_with(image: str) -> None:
    """transformers 4 and 5 take no tokenizers in common; all else is the same in both images."""
    for number in ("", "5"):
        proved = {(name, version) for name, version, _ in pins(f"exporter{number}.lock")}
        served = {(name, version) for name, version, _ in pins(f"{image}{number}.lock")}
        used = {"onnxruntime", "numpy", "tokenizers", "jinja2", "msgspec"}
        assert used <= {name for name, _ in served & proved}
    differ = set(pins(f"{image}.lock")) ^ set(pins(f"{image}5.lock"))
    assert {name for name, _, _ in differ} == {"tokenizers"}


def test_one_environment_can_hold_all_locks_but_that_of_transformers_5() -> None:
    largest = {(name, version) for name, version, _ in pins("bench.txt")}
    for lock in {*LOCKS, "deploy.txt"} - {APART}:
        assert {(name, version) for name, version, _ in pins(lock)} <= largest


def pins(lock: str) -> list[tuple[str, str, str]]:
    """(name, version, the marker, hashes and reasons) of each pin."""
    return PIN.findall((ROOT / "requirements" / lock).read_text())


def metadata(wheel: ZipFile) -> Message:
    """The wheel's METADATA."""
    path = next(path for path in wheel.namelist() if path.endswith(".dist-info/METADATA"))
    return message_from_bytes(wheel.read(path))


@pytest.mark.parametrize("cloud", ["lambda", "cloudrun"])
def test_the_stage_that_exports_has_all_that_the_gates_import(cloud: str, tmp_path: Path) -> None:
    """Whatever a Dockerfile copies for the export imports without the rest of handlers/."""
    stage = (ROOT / f"Dockerfile.{cloud}").read_text().split(" AS export\n")[1].split("\nFROM ")[0]
    copied = [line.split()[1:-1] for line in stage.splitlines() if line.startswith("COPY handlers")]
    for path in (ROOT / word for words in copied for word in words):
        target = tmp_path / path.relative_to(ROOT)
        if path.is_dir():
            shutil.copytree(path, target)
        else:
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(path, target)
    engine = sorted((tmp_path / "handlers" / "engine").glob("[!_]*.py"))
    lines = [f"import handlers.engine.{path.stem}" for path in engine]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (len(lines) > 10, done.returncode, done.stderr) == (True, 0, "")
