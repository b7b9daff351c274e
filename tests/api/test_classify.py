from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from handlers.artifact.manifest import EncoderInfo
from handlers.encoder.encoder import apply_activation
from tests.api.encoder_client import LABELS, EncoderClient, ids_of, row_of_text
from tests.encoder.fake_runner import LONGEST

PATH = "/v1/classify"
TEXTS = ["A kettle sings", "Paris"]


def client(activation: Any = "none") -> EncoderClient:
    info = EncoderInfo(dimensions=0, max_tokens=LONGEST, labels=LABELS, activation=activation)
    return EncoderClient("text-classification", info=info)


def test_the_answer_has_vllms_shape() -> None:
    body = client().json("POST", PATH, {"input": TEXTS})

    count = sum(map(len, ids_of(TEXTS)))
    assert body.pop("id").startswith("classify-")
    assert body.pop("created") > 1_700_000_000
    assert body == {
        "object": "list",
        "model": "Tiny",
        "data": [
            {"index": index, "label": "plain", "probs": row_of_text(text), "num_classes": 3}
            for index, text in enumerate(TEXTS)
        ],
        "labels": ["sad", "plain", "glad"],
        "usage": {"prompt_tokens": count, "total_tokens": count},
    }


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_scores_are_what_the_model_was_trained_for(activation: str) -> None:
    (scored,) = client(activation).json("POST", PATH, {"input": "Paris"})["data"]

    (expected,) = apply_activation(
        np.array([row_of_text("Paris")], np.float32), activation
    ).tolist()
    assert scored["probs"] == expected
    assert scored["label"] == "plain"


def test_logits_are_given_where_they_are_asked_for() -> None:
    body = {"input": "Paris", "use_activation": False}
    (scored,) = client("softmax").json("POST", PATH, body)["data"]

    assert scored["probs"] == row_of_text("Paris")


def test_softmax_shares_one_among_the_labels_and_sigmoid_gives_each_its_own() -> None:
    logits = np.array([[1, 2, 4], [-1000, 0, 1000]], np.float32)

    assert apply_activation(logits, "softmax").sum(axis=1).tolist() == pytest.approx([1, 1])
    assert apply_activation(logits, "softmax")[0].tolist() == pytest.approx(
        [0.042, 0.114, 0.844], abs=1e-3
    )
    assert apply_activation(logits, "sigmoid")[0].tolist() == pytest.approx(
        [0.731, 0.881, 0.982], abs=1e-3
    )
    assert apply_activation(logits, "sigmoid")[1].tolist() == [0, 0.5, 1]


def test_an_empty_text_is_named() -> None:
    status, error = client().error("POST", PATH, {"input": ["Paris", ""]})

    assert (status, error["param"]) == (400, "input[1]")
