"""An artefact appears whole or not at all, and an interrupted export goes on."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from handlers.artifact.manifest import MANIFEST, SCHEMA, Manifest, ModelInfo
from model_export.package import publish
from model_export.recipe import CalibrationTable, DecoderRecipe
from model_export.recipe_loader import load_decoder_recipe
from model_export.reporting import ExportError
from model_export.scratch import check_destination, fingerprint, scratch_dir
from tests.support.reports import ignore


def manifest_of(model_id: str) -> bytes:
    model = ModelInfo(id=model_id, source="", revision="", architecture="", licence="")
    return msgspec.json.encode(
        Manifest(
            schema=SCHEMA,
            task="text-generation",
            model=model,
            precision="fp32",
            vocab_size=0,
            context_length=0,
            eos_token_ids=(),
            special_tokens={},
            files={},
            created=0,
            versions={},
            verification={},
        )
    )


def build(out: Path, model_id: str) -> None:
    with scratch_dir(out, model_id, ignore) as scratch:
        artefact = scratch / "artefact"
        artefact.mkdir()
        (artefact / MANIFEST).write_bytes(manifest_of(model_id))
        publish(artefact, out)


def end(out: Path, mark: str, error: BaseException, lines: list[str] | None = None) -> None:
    """Makes something, and ends with `error`."""
    with scratch_dir(out, mark, ignore if lines is None else lines.append) as scratch:
        (scratch / "logits").write_text("half an hour's work", encoding="utf-8")
        raise error


def test_an_artefact_replaces_an_older_one_whole(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "model"
    build(out, "old")
    (out / "left-over").write_text("of the old one")
    build(out, "new")
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        MANIFEST: manifest_of("new")
    }
    assert list(out.parent.iterdir()) == [out]


def test_an_export_that_fails_leaves_the_older_artefact_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "model"
    build(out, "old")
    with pytest.raises(ExportError, match="gate"):
        end(out, "new", ExportError("a gate failed"))
    assert (out / MANIFEST).read_bytes() == manifest_of("old")
    assert list(tmp_path.iterdir()) == [out]


def test_the_older_artefact_is_put_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path,
) -> None:
    out = tmp_path / "model"
    build(out, "old")
    with scratch_dir(out, "new", ignore) as scratch, pytest.raises(FileNotFoundError):
        publish(scratch / "absent", out)
    assert (out / MANIFEST).read_bytes() == manifest_of("old")
    assert list(tmp_path.iterdir()) == [out]


def test_the_older_artefact_is_put_back_by_the_export_after_one_that_was_killed(
    tmp_path: Path,
) -> None:
    out = tmp_path / "model"
    build(out, "old")
    with pytest.raises(KeyboardInterrupt):
        end(out, "new", KeyboardInterrupt())
    out.rename(tmp_path / ".model-building" / "replaced")  # publish's first rename
    with pytest.raises(ExportError, match="gate"):
        end(out, "another", ExportError("a gate failed"))
    assert (out / MANIFEST).read_bytes() == manifest_of("old")
    assert list(tmp_path.iterdir()) == [out]


def test_an_interrupted_export_goes_on_and_another_starts_anew(tmp_path: Path) -> None:
    out = tmp_path / "model"
    with pytest.raises(KeyboardInterrupt):
        end(out, "mark", KeyboardInterrupt())
    lines: list[str] = []
    with scratch_dir(out, "mark", lines.append) as scratch:
        assert (scratch / "logits").is_file()
    assert lines == ["go on with the export that was interrupted"]
    with pytest.raises(SystemExit):
        end(out, "mark", SystemExit(143), lines)
    assert lines[1].startswith("interrupted: the same command goes on")
    with scratch_dir(out, "another mark", lines.append) as scratch:
        assert [path.name for path in scratch.iterdir()] == ["fingerprint"]
    assert len(lines) == 2
    assert list(tmp_path.iterdir()) == []


def test_two_exports_to_one_place_do_not_meet(tmp_path: Path) -> None:
    out = tmp_path / "model"
    with scratch_dir(out, "mark", ignore) as scratch:
        with (
            pytest.raises(ExportError, match=r"Another export to .* is running"),
            scratch_dir(out, "mark", ignore),
        ):
            pass
        assert scratch.is_dir()


def test_the_fingerprint_is_of_recipe_and_source() -> None:
    recipe: DecoderRecipe = load_decoder_recipe("smollm2-135m")
    wider = msgspec.structs.replace(recipe.tolerance, max_kl=0.2)
    assert fingerprint(recipe, "1") == fingerprint(load_decoder_recipe("smollm2-135m"), "1")
    assert fingerprint(recipe, "1") != fingerprint(recipe, "2")
    assert fingerprint(recipe, "1") != fingerprint(
        msgspec.structs.replace(recipe, tolerance=wider), "1"
    )
    one, other = (
        msgspec.structs.replace(recipe, calibration=CalibrationTable(text)) for text in "ab"
    )
    assert fingerprint(one, "1") != fingerprint(other, "1")


@pytest.mark.parametrize("manifest", [None, "not JSON", '{"manifest_version": 3, "name": "App"}'])
def test_a_directory_that_is_not_an_artefact_is_left_alone(
    tmp_path: Path, manifest: str | None
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    if manifest is not None:
        (tmp_path / MANIFEST).write_text(manifest)
    with pytest.raises(ExportError, match="is not an artefact"):
        check_destination(tmp_path)


def test_a_published_artefact_can_be_read_by_every_user(tmp_path: Path) -> None:
    build(tmp_path / "model", "any")
    assert (tmp_path / "model").stat().st_mode & 0o055 == 0o055
