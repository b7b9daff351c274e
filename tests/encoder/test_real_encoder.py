"""The encoder on ONNX Runtime, with tiny random models in fp32."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.artifact.manifest import MANIFEST, Artifact, Task
from handlers.config import Settings
from handlers.encoder.encoder import Encoder
from handlers.encoder.request import EncoderInput
from handlers.errors import ArtifactError
from handlers.text.encoder_inputs import EncoderInputBuilder
from handlers.text.tokenizer import Tokenizer
from tests.support.encoder_tasks import ENCODER_TASKS

WORDS = [
    "a",
    "kettle",
    "sings",
    "when",
    "the",
    "water",
    "boils",
    "paris",
    "jupiter",
    "lighthouse",
    "keeper",
]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=60), min_size=1, max_size=30)


def load(directory: Path, **environ: str) -> Encoder:
    settings = Settings.from_environ({"MODEL_DIR": str(directory), **environ})
    return Encoder.load(Artifact.open(directory), settings)


@pytest.fixture(scope="module", params=ENCODER_TASKS)
def task(request: pytest.FixtureRequest) -> Task:
    task: Task = request.param
    return task


@pytest.fixture(scope="module")
def encoder(tiny_encoders: dict[Task, Path], task: Task) -> Encoder:
    return load(tiny_encoders[task])


@pytest.fixture(scope="module")
def reader(tiny_encoders: dict[Task, Path], task: Task) -> EncoderInputBuilder:
    tokenizer = Tokenizer.load(Artifact.open(tiny_encoders[task]).tokenizer)
    return EncoderInputBuilder(tokenizer, 128)


@given(TEXTS)
@settings(max_examples=20)
def test_an_answer_does_not_depend_on_who_else_is_in_the_call(
    encoder: Encoder, reader: EncoderInputBuilder, texts: list[list[str]]
) -> None:
    inputs = reader.texts([" ".join(words) for words in texts], str, 128)

    together = encoder.encode(inputs)

    alone = np.concatenate([encoder.encode([each]) for each in inputs])
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)


def test_a_pairs_segments_change_its_answer(encoder: Encoder, reader: EncoderInputBuilder) -> None:
    (pair,) = reader.pairs("a kettle sings", ["paris"], str, None)

    flat = EncoderInput(pair.ids)

    rows = encoder.encode([pair, flat])
    assert abs(rows[0] - rows[1]).max() > 1e-3


def test_an_embedding_has_length_one(tiny_encoders: dict[Task, Path]) -> None:
    rows = load(tiny_encoders["feature-extraction"]).encode(
        [EncoderInput([2, 9, 3]), EncoderInput([2, 3])]
    )

    assert np.linalg.norm(rows, axis=1).tolist() == pytest.approx([1, 1], abs=1e-6)


def test_the_configured_context_shortens_what_a_model_takes(
    tiny_encoders: dict[Task, Path],
) -> None:
    shortened = load(tiny_encoders["text-ranking"], KINDLING_CONTEXT_LENGTH="100")

    assert shortened.context_length == 100
    assert load(tiny_encoders["text-ranking"]).context_length == 128


def changed(source: Path, target: Path, **changes: object) -> Path:
    """A copy whose manifest says something else."""
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    manifest = msgspec.json.decode((target / MANIFEST).read_bytes()) | changes
    (target / MANIFEST).write_bytes(msgspec.json.encode(manifest))
    return target


def test_an_artefact_that_says_nothing_of_its_encoder_is_refused(
    tiny_encoders: dict[Task, Path], tmp_path: Path
) -> None:
    directory = changed(tiny_encoders["text-ranking"], tmp_path, encoder=None)

    with pytest.raises(ArtifactError, match="says nothing of an encoder: export"):
        load(directory)


def test_a_graph_with_other_rows_than_its_manifest_says_is_refused(
    tiny_encoders: dict[Task, Path], tmp_path: Path
) -> None:
    info = {"dimensions": 384, "max_tokens": 128}
    directory = changed(tiny_encoders["feature-extraction"], tmp_path, encoder=info)

    with pytest.raises(ArtifactError, match="rows of 64, where its manifest says 384"):
        load(directory)


def test_a_decoders_graph_is_refused(tiny_artifact: Path, tmp_path: Path) -> None:
    info = {"dimensions": 384, "max_tokens": 128}
    directory = changed(tiny_artifact, tmp_path, encoder=info, task="feature-extraction")

    with pytest.raises(ArtifactError, match="is not an encoder graph"):
        load(directory)


def test_an_unknown_task_is_no_manifest(tiny_encoders: dict[Task, Path], tmp_path: Path) -> None:
    directory = changed(tiny_encoders["text-ranking"], tmp_path, task="fill-mask")

    with pytest.raises(ArtifactError, match="is not a manifest"):
        load(directory)
