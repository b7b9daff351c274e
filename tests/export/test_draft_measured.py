"""The export measures a draft model in the artefact, and bakes its prefix where it has a cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from handlers.artifact.manifest import DRAFT_GRAPH, DRAFT_PREFIX, GRAPH, WEIGHTS, Artifact
from handlers.engine.prefix_cache import prefix_identity
from handlers.engine.session import Session, kernel_versions
from model_export.draft.step_cost import bytes_read, step_cost_in
from model_export.manifest import measure_files
from model_export.recipe import DraftTable
from model_export.reporting import ExportError
from model_export.verify.draft import choices_of, greedy_answers, measure_draft
from model_export.verify.exchange import DecoderReference, MeasuredDraft
from model_export.verify.prefix import bake
from tests.support.baking import write_manifest
from tests.support.reports import ignore
from tests.support.tiny_models import CONTEXT_LENGTH
from tests.support.tiny_strategies import load_tiny, tiny_strategy

SYSTEM = "You are a lighthouse keeper."
ANY_GAIN = DraftTable(recipe="itself", min_gain=0)
"""Of a tiny model, whose calls take no time by their bytes, no draft makes more."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> DecoderReference:
    directory = tmp_path_factory.mktemp("reference")
    return tiny_strategy(load_tiny(directory / "tiny")).reference(directory, ignore).reference


def with_draft(artifact: Path, graph: Path, directory: Path) -> Artifact:
    """A copy with this graph, whose weights are the model's, as its draft model."""
    copy = shutil.copytree(artifact, directory)
    (copy / DRAFT_GRAPH).write_bytes(graph.read_bytes())
    manifest = Artifact.open(copy).manifest
    draft = {DRAFT_GRAPH: measure_files(copy)[DRAFT_GRAPH]}
    write_manifest(copy, msgspec.structs.replace(manifest, files=manifest.files | draft))
    return Artifact.open(copy)


@pytest.fixture(scope="module")
def itself(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artefact whose draft model is the model."""
    directory = tmp_path_factory.mktemp("itself") / "artefact"
    return with_draft(tiny_artifact, tiny_artifact / GRAPH, directory)


def measured(
    artifact: Artifact,
    reference: DecoderReference,
    wanted: DraftTable,
    model: Artifact | None = None,
) -> MeasuredDraft:
    """The figures of a draft model; the choices on the windows are those of `model`."""
    graph = (model or artifact).graph
    session = Session(graph, threads=1, slots=1, capacity=CONTEXT_LENGTH)
    choices = [choices_of(session, window) for window in reference.windows]
    cost = step_cost_in(artifact.directory)
    assert cost is not None
    return measure_draft(artifact, wanted, reference, np.concatenate(choices), cost, 1, ignore)


def test_of_a_model_that_drafts_for_itself_every_guess_comes_true(
    itself: Artifact, reference: DecoderReference
) -> None:
    found = measured(itself, reference, ANY_GAIN)
    assert found.acceptance == 1
    assert found.measured["acceptance"] == found.measured["agreement"] == {"text": 1, "chats": 1}
    assert found.measured["step_cost"] == 1
    assert [each["ids_a_call"] for each in found.measured["gains"]] == [*range(2, 9)]


def test_the_text_and_the_answers_are_measured_each_on_its_own(
    itself: Artifact, quantised_artifact: Path, reference: DecoderReference
) -> None:
    other = measured(itself, reference, ANY_GAIN, model=Artifact.open(quantised_artifact))
    assert 0 < other.measured["agreement"]["text"] < 1
    assert other.measured["agreement"]["chats"] == 1
    assert other.acceptance == pytest.approx(sum(other.measured["acceptance"].values()) / 2)


def test_the_figures_are_the_same_again(itself: Artifact, reference: DecoderReference) -> None:
    first, second = (measured(itself, reference, ANY_GAIN) for _ in range(2))
    assert first == second


def test_a_draft_that_takes_as_long_as_the_model_is_refused(
    itself: Artifact, reference: DecoderReference
) -> None:
    with pytest.raises(ExportError, match=r"would not pay: 1\.00 of its guesses come true"):
        measured(itself, reference, DraftTable(recipe="itself"))


def test_the_answers_are_the_engines_and_without_a_template_those_to_completions(
    itself: Artifact, reference: DecoderReference
) -> None:
    chats = greedy_answers(itself, reference, threads=1)
    assert [prompt for prompt, _ in chats] == [
        chat.ids for chat in reference.chats if len(chat.ids) < CONTEXT_LENGTH - 64
    ]
    assert any(len(answer) == 64 for _, answer in chats)
    bare = msgspec.structs.replace(reference, chats=[])
    completions = greedy_answers(itself, bare, threads=1)
    assert completions
    assert not {tuple(ids) for ids, _ in chats} & {tuple(ids) for ids, _ in completions}


def test_tables_of_which_a_call_reads_some_rows_do_not_count(quantised_artifact: Path) -> None:
    everything = (quantised_artifact / WEIGHTS).stat().st_size
    assert 0 < bytes_read(quantised_artifact / GRAPH) < everything


def test_an_artefact_without_a_draft_model_has_no_cost_of_one(quantised_artifact: Path) -> None:
    assert step_cost_in(quantised_artifact) is None


def test_a_draft_with_a_cache_of_its_own_has_its_prefix_in_the_same_format(
    itself: Artifact,
) -> None:
    info = bake(itself, SYSTEM, threads=1, draft=True)
    draft = itself.directory / DRAFT_PREFIX
    assert draft.read_bytes() == itself.prefix.read_bytes()  # it is the model itself
    ids = np.frombuffer(draft.read_bytes(), np.int64, info.tokens)
    assert len(ids) == info.tokens > 10
    assert DRAFT_GRAPH in info.computed_with
    assert info.computed_with == prefix_identity(itself.manifest, kernel_versions())


def test_own_layers_have_no_prefix_of_their_own(tiny_artifact: Path, tmp_path: Path) -> None:
    artifact = with_draft(tiny_artifact, tiny_artifact / GRAPH, tmp_path / "copy")
    bake(artifact, SYSTEM, threads=1)
    assert artifact.prefix.is_file()
    assert not (artifact.directory / DRAFT_PREFIX).exists()
