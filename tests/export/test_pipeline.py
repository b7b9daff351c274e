"""The whole export on tiny random models: from a recipe to an artefact that the engine serves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from handlers.artifact.manifest import MANIFEST, Artifact, Manifest
from model_export.fetch.locate import sha256_of
from model_export.pipeline import export
from model_export.recipe_loader import load_decoder_recipe
from model_export.reporting import ExportError
from tests.support.hub import COMMIT, REPOSITORY, serve_hub
from tests.support.reports import ignore
from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_models import CONTEXT_LENGTH, SAVED

ROOT = Path(__file__).parent.parent.parent
RECIPE = """
[model]
id = "Tiny"
licence = "Apache-2.0"

[source]
{source}

[export]
context_length = {context_length}

[precision]
weights = "int8"

[tolerance]
max_kl = {max_kl}
min_top1_agreement = 0.5
max_perplexity_ratio = 2.0
"""


def write_recipe(directory: Path, source: str, max_kl: float = 5.0) -> Path:
    path = directory / "tiny.toml"
    text = RECIPE.format(source=source, context_length=CONTEXT_LENGTH, max_kl=max_kl)
    path.write_text(text, encoding="utf-8")
    return path


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "model_export", *arguments],
        cwd=ROOT,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def assert_served(artefact: Path) -> Manifest:
    manifest = Artifact.open(artefact).manifest
    for name, info in manifest.files.items():
        assert sha256_of(artefact / name) == info.sha256
    assert set(manifest.verification) == {"tokens", "greedy", "drift", "answer"}
    return manifest


@pytest.mark.parametrize("family", SAVED)
def test_every_architecture_goes_through_every_gate(tmp_path: Path, family: str) -> None:
    save_tiny_folder(tmp_path / "source", family)
    recipe = load_decoder_recipe(str(write_recipe(tmp_path, 'path = "source"')))
    lines: list[str] = []
    export(recipe, tmp_path / "out", lines.append)
    manifest = assert_served(tmp_path / "out")
    assert manifest.precision == "int8 block 32"
    assert manifest.verification["greedy"]["tokens"] > 100
    steps = [line.partition(" ")[0].rstrip(":,") for line in lines]
    order = ["load", "reference", "convert", "quantize", "verify", "pack"]
    assert list(dict.fromkeys(steps)) == order


@pytest.mark.parametrize("pin", [f'\nrevision = "{COMMIT}"', ""])
def test_a_hub_repository_becomes_an_artefact_on_the_command_line(tmp_path: Path, pin: str) -> None:
    folder = save_tiny_folder(tmp_path / "source")
    recipe = write_recipe(tmp_path, f'hub = "{REPOSITORY}"{pin}')
    out = tmp_path / "out"
    with serve_hub(folder) as endpoint:
        ended = run(
            str(recipe), "--out", str(out), HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path / "cache")
        )
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.stdout.splitlines()[-1].endswith("MB)")
    assert ("not pinned: " in ended.stdout) == (not pin)
    model = assert_served(out).model
    assert (model.id, model.source, model.revision) == ("Tiny", f"hub:{REPOSITORY}", COMMIT)


def test_a_model_without_a_chat_template_goes_through_every_gate(tmp_path: Path) -> None:
    save_tiny_folder(tmp_path / "source", chat_template=None)
    recipe = load_decoder_recipe(str(write_recipe(tmp_path, 'path = "source"')))
    export(recipe, tmp_path / "out", ignore)
    verification = assert_served(tmp_path / "out").verification
    assert verification["tokens"]["chats"] == 0
    assert verification["greedy"]["tokens"] > 50


def test_a_gguf_file_becomes_an_artefact(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf")
    recipe = load_decoder_recipe(str(write_recipe(tmp_path, 'gguf = "tiny.gguf"')))
    export(recipe, tmp_path / "out", ignore)
    assert_served(tmp_path / "out")
    assert "Apache License" in (tmp_path / "out" / "LICENSE").read_text(encoding="utf-8")


def test_a_gate_that_fails_is_one_line_and_leaves_nothing_behind(tmp_path: Path) -> None:
    save_tiny_folder(tmp_path / "source")
    recipe = write_recipe(tmp_path, 'path = "source"', max_kl=1e-9)
    before = set(tmp_path.iterdir())
    ended = run(str(recipe), "--out", str(tmp_path / "out"))
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: Gate 3 failed: the quantised graph's mean KL divergence")
    assert len(ended.stderr.splitlines()) == 1
    assert set(tmp_path.iterdir()) == before


def test_an_older_artefact_survives_an_export_that_fails(tmp_path: Path) -> None:
    save_tiny_folder(tmp_path / "source")
    export(
        load_decoder_recipe(str(write_recipe(tmp_path, 'path = "source"'))),
        tmp_path / "out",
        ignore,
    )
    manifest = (tmp_path / "out" / MANIFEST).read_bytes()
    strict = load_decoder_recipe(str(write_recipe(tmp_path, 'path = "source"', max_kl=1e-9)))
    with pytest.raises(ExportError, match="Gate 3 failed"):
        export(strict, tmp_path / "out", ignore)
    assert (tmp_path / "out" / MANIFEST).read_bytes() == manifest
    assert_served(tmp_path / "out")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_export_goes_on_and_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    save_tiny_folder(tmp_path / "source")
    recipe = write_recipe(tmp_path, 'path = "source"')
    before = set(tmp_path.iterdir())
    heard = ["env", "--default-signal"]  # under nohup SIGHUP would be ignored
    command = [sys.executable, "-m", "model_export", str(recipe), "--out", str(tmp_path / "out")]
    with subprocess.Popen(
        [*heard, *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while "gate 1" not in process.stdout.readline():
            pass
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == 128 + number
    assert errors == ""
    assert set(tmp_path.iterdir()) == before | {tmp_path / ".out-building"}
    lines: list[str] = []
    export(load_decoder_recipe(str(recipe)), tmp_path / "out", lines.append)
    assert "go on with the export that was interrupted" in lines
    assert not [line for line in lines if line.startswith("reference")]
    assert_served(tmp_path / "out")
    assert set(tmp_path.iterdir()) == before | {tmp_path / "out"}


def test_a_package_that_is_missing_is_one_line_that_says_how_to_get_it(tmp_path: Path) -> None:
    program = "import sys; sys.modules['torch'] = None; from model_export.__main__ import main"
    program += f"; sys.exit(main(['smollm2-135m', '--out', {str(tmp_path / 'out')!r}]))"
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: torch is not installed. An export needs torch (pip ")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('path = "absent"', "absent does not exist"),
        ('package = "llm-absent"\nversion = "1"\nfile = "a"', "pip install --no-deps llm-absent"),
    ],
)
def test_a_source_that_is_not_there_is_one_line(tmp_path: Path, source: str, said: str) -> None:
    ended = run(str(write_recipe(tmp_path, source)), "--out", str(tmp_path / "out"))
    assert ended.returncode == 1
    assert said in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_an_unknown_recipe_is_one_line() -> None:
    ended = run("smollm2-135")
    assert ended.returncode == 1
    assert "did you mean 'smollm2-135m'?" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_context_that_the_model_does_not_have_is_one_line(tmp_path: Path) -> None:
    save_tiny_folder(tmp_path / "source")
    path = write_recipe(tmp_path, 'path = "source"')
    text = path.read_text().replace(f"= {CONTEXT_LENGTH}", f"= {CONTEXT_LENGTH + 1}")
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ExportError, match="context_length is 257"):
        export(load_decoder_recipe(str(path)), tmp_path / "out", ignore)
