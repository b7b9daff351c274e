"""The scripts behind the Makefile: each decision that would cost a user an hour when wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

from handlers import __version__
from handlers.artifact.manifest import Task
from scripts import fetch_emulator, first_question, images, install_torch

ROOT = Path(__file__).resolve().parent.parent
STDLIB = "standard library, compiled"
CPU_INDEX = ["--index-url", "https://download.pytorch.org/whl/cpu"]


def torch_report(version: str, *requires: str) -> dict[str, Any]:
    """The part that we read of what `pip install --dry-run --report - torch` prints."""
    pure = ["filelock", "typing-extensions>=4.10.0", "sympy>=1.13.3", 'optree; extra == "optree"']
    wheel = {"name": "torch", "version": version, "requires_dist": [*pure, *requires]}
    return {"version": "1", "install": [{"is_direct": False, "metadata": wheel}]}


# As pip 26.3 reported them for Python 3.12 from the Python Package Index, and for Python 3.11
# from a folder with a CPU build.
CUDA_BUILD = torch_report(
    "2.13.0",
    'cuda-bindings<14,>=13.0.3; platform_system == "Linux" and python_version < "3.15"',
    'cuda-toolkit[cublas,cudart]==13.0.3; platform_system == "Linux"',
    'nvidia-cudnn-cu13==9.20.0.48; platform_system == "Linux"',
    'triton==3.7.1; platform_system == "Linux" and python_version < "3.15"',
)
CPU_BUILD = torch_report("2.13.0+cpu")


def test_a_cuda_build_of_torch_is_replaced_by_pytorchs_cpu_build() -> None:
    assert install_torch.index_options(CUDA_BUILD) == CPU_INDEX


def test_a_cpu_build_that_pip_finds_by_itself_is_taken_as_it_is() -> None:
    assert install_torch.index_options(CPU_BUILD) == []


def test_pytorchs_cpu_build_is_tried_where_pip_finds_no_torch_that_fits() -> None:
    assert install_torch.index_options(None) == CPU_INDEX


def test_an_installed_torch_is_left_alone() -> None:
    assert install_torch.index_options({"version": "1", "install": []}) is None


def test_pips_own_words_are_shown_when_it_finds_no_torch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert install_torch.pip_report("torch==never") is None
    assert "Invalid requirement: 'torch==never'" in capsys.readouterr().err


def test_the_installed_torch_is_the_pinned_one_so_that_pip_has_nothing_to_add() -> None:
    report = install_torch.pip_report(install_torch.pinned_torch())
    assert install_torch.index_options(report) is None


@pytest.mark.parametrize(
    ("machine", "cpu"), [("x86_64", "x86_64"), ("aarch64", "arm64"), ("arm64", "arm64")]
)
def test_the_emulator_is_chosen_by_the_cpu(machine: str, cpu: str) -> None:
    assert fetch_emulator.emulator_cpu(machine) == cpu


def test_a_cpu_without_an_emulator_is_told_so() -> None:
    with pytest.raises(SystemExit, match="no Lambda emulator for riscv64"):
        fetch_emulator.emulator_cpu("riscv64")


def test_a_changed_emulator_is_refused() -> None:
    assert not fetch_emulator.is_intact(b"another program", "x86_64")


def find_python(*names: str, path: Path) -> subprocess.CompletedProcess[str]:
    """scripts/find_python with nothing but `path` to look in."""
    command = ["/bin/sh", str(ROOT / "scripts" / "find_python"), *names]
    return subprocess.run(
        command, env={"PATH": str(path)}, capture_output=True, text=True, check=False
    )


def program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_python_that_exists_but_does_not_run_is_passed_over(tmp_path: Path) -> None:
    program(tmp_path / "python3.11", "echo 'pyenv: python3.11: command not found' >&2; exit 127")
    program(tmp_path / "python3.12", f'exec {sys.executable} "$@"')
    assert find_python(path=tmp_path).stdout == "python3.12\n"


def test_a_machine_without_a_python_that_fits_is_told_which_ones_do(tmp_path: Path) -> None:
    program(tmp_path / "python3", "exit 1")
    found = find_python(path=tmp_path)
    assert found.returncode == 1
    assert "Kindling needs Python 3.11, 3.12 or 3.13" in found.stderr


def test_a_python_without_venv_is_told_what_to_install(tmp_path: Path) -> None:
    program(
        tmp_path / "python3.11",
        f'case "$2" in *venv*) exit 1;; *) exec {sys.executable} "$@";; esac',
    )
    found = find_python(path=tmp_path)
    assert found.returncode == 1
    assert "apt-get install python3-venv" in found.stderr


def test_the_image_that_is_deployed_or_tried_is_the_one_of_the_tag() -> None:
    assert "--image kindling-lambda:latest " in make("--dry-run", "deploy-lambda")
    assert "--image kindling-lambda:mine " in make("--dry-run", "deploy-lambda", "TAG=mine")
    tried = make("--dry-run", "lambda-image", "TAG=mine")
    assert "make images TAG=mine" in tried
    assert "exec docker run" in tried
    assert "--entrypoint /aws-lambda-rie kindling-lambda:mine " in tried


def test_the_demo_is_exported_with_the_packages_that_the_images_have() -> None:
    plan = make("--dry-run", "--always-make", "test-export5", "RECIPE=gpt2")
    assert "\n.venv/bin/python -m model_export smollm2-135m --out build/model\n" in plan


def recipe_with_5(tmp_path: Path) -> str:
    path = tmp_path / "newer.toml"
    path.write_text("[export]\ncontext_length = 256\ntransformers = 5\n")
    return f"RECIPE={path}"


@pytest.mark.parametrize("word", ["export", "serve", "lambda"])
def test_a_recipe_that_takes_transformers_5_is_exported_and_served_by_its_environment(
    tmp_path: Path, word: str
) -> None:
    plan = make("--dry-run", "--always-make", word, recipe_with_5(tmp_path))
    newer = ".venv-transformers5/bin/python"
    assert (
        f"{newer} -m pip install -qq --disable-pip-version-check --no-deps -r requirements/tr"
        in plan
    )
    assert f"\n{newer} -m model_export {tmp_path / 'newer.toml'} --out build/models/newer\n" in plan
    assert " .venv/bin/python" not in plan
    assert word == "export" or f" {newer} -m " in plan.rpartition("exec env ")[2]


@pytest.mark.parametrize("word", ["check", "test", "bench", "images"])
def test_no_other_word_runs_in_the_environment_of_transformers_5(tmp_path: Path, word: str) -> None:
    assert "transformers5" not in make("--dry-run", "--always-make", word, recipe_with_5(tmp_path))


def test_make_help_lists_every_word_that_make_takes() -> None:
    words = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert words
    listed = re.findall(r"^  make ([\w-]+)", make("help"), re.MULTILINE)
    assert listed == words[1].split()


@pytest.mark.parametrize("words", [["serve"], ["lambda"], ["serve", "RECIPE=recipes/other.toml"]])
def test_make_prints_the_very_command_that_it_runs(words: list[str]) -> None:
    plan = make("--dry-run", *words, "PORT=18090")
    command = plan.rpartition("exec env ")[2].strip()
    assert "18090" in command
    assert f"'{command}'" in plan


def test_a_chat_is_what_a_decoder_is_asked_first() -> None:
    *_, typed = shlex.split(first_question.curl("serve", "8080", "text-generation"))
    *_, invoked = shlex.split(first_question.curl("lambda", "9000", "text-generation"))
    assert json.loads(typed) == json.loads(invoked)
    assert json.loads(typed)["messages"][0]["role"] == "user"


def test_every_task_has_its_first_question() -> None:
    assert list(first_question.REQUESTS) == list(get_args(Task))


def test_where_there_is_no_model_nothing_is_printed_before_the_server_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first_question.main("serve", "8080", str(tmp_path / "manifest.json"))
    assert capsys.readouterr().out == ""


def test_each_recipe_is_exported_to_a_directory_of_its_own() -> None:
    assert "--out build/model\n" in make("--dry-run", "export")
    other = "RECIPE=recipes/model.toml"
    assert "--out build/models/model\n" in make("--dry-run", "export", other)
    assert "MODEL_DIR=build/models/model " in make("--dry-run", "serve", other)


def test_a_model_dir_of_the_users_own_is_served_and_nothing_is_exported() -> None:
    plan = make("--dry-run", "serve", MODEL_DIR="/mine")
    assert "exec env MODEL_DIR=/mine " in plan
    assert "model_export" not in plan


def test_only_this_machine_can_reach_the_servers_unless_host_says_otherwise() -> None:
    assert "HOST=127.0.0.1 " in make("--dry-run", "serve")
    assert "-address 127.0.0.1:9000 " in make("--dry-run", "lambda")
    assert "HOST=0.0.0.0 " in make("--dry-run", "serve", "HOST=0.0.0.0")


def test_every_folder_of_tests_but_the_images_is_run_by_make_test() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]
    run = {path for pattern in settings["testpaths"] for path in ROOT.glob(pattern)}
    folders = {path.parent for path in ROOT.glob("tests/*/test_*.py")}
    assert folders - run == {ROOT / "tests" / "images"}


# As `docker history` prints them: of the official base, and of ours.
@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("RUN /bin/sh -c set -eux; ./configure --with-ensurepip; make; # buildkit", "base"),
        ('RUN rm -rf "$stdlib/ensurepip" && python -m compileall -f -q # buildkit', STDLIB),
        ("COPY /model model # buildkit", "model"),
        ('CMD ["python3"]', "base"),
    ],
)
def test_a_layer_is_counted_for_what_it_holds(command: str, what: str) -> None:
    assert images._holding(command) == what


def test_an_image_of_a_recipe_that_the_build_cannot_see_is_refused_at_once() -> None:
    with pytest.raises(SystemExit, match="put the recipe into model_export/recipes/"):
        images.main("recipes/mine.toml", "latest", [])


@pytest.mark.parametrize(
    ("line", "options"),
    [
        ("transformers = 5", ["--build-arg", "TRANSFORMERS=5"]),
        ("transformers=5  # Gemma 4", ["--build-arg", "TRANSFORMERS=5"]),
        ("# transformers = 5", []),
        ("transformers = 50", []),
        ("", []),
    ],
)
def test_an_image_is_exported_by_the_transformers_that_its_recipe_takes(
    line: str, options: list[str]
) -> None:
    assert images.exporter(f"[export]\n{line}\ncontext_length = 256\n") == options


@pytest.mark.parametrize(
    "options", [["--build-arg", "MODEL=outside"], ["--build-arg=MODEL=outside"]], ids=len
)
def test_an_image_without_a_model_has_no_label_of_one(
    monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    builds: list[list[str]] = []
    monkeypatch.setattr(images, "build", lambda _, options: builds.append(options))
    monkeypatch.setattr(images, "layers", lambda _: [])
    monkeypatch.setattr(images, "inspect", lambda _: {"Labels": {}})
    images.main("smollm2-135m", "latest", options)
    assert len(builds) == 2
    assert not [part for options in builds for part in options if "kindling.model" in part]
    assert "org.opencontainers.image.licenses=Apache-2.0" in builds[0]
    assert f"org.opencontainers.image.version={__version__}" in builds[0]


def make(*arguments: str, **variables: str) -> str:
    # As from a shell, though `make test` may have started these tests.
    unwanted = ("MAKE", "MFLAGS", "MODEL_DIR", "HOST", "TAG")
    kept = {name: os.environ[name] for name in os.environ if not name.startswith(unwanted)}
    environment = kept | variables
    done = subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout
