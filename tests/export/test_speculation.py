"""The gain of drafts follows from which guesses come true, and from bytes alone."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from model_export.recipe import MIN_DRAFT_GAIN, DraftTable
from model_export.reporting import ExportError
from model_export.verify.draft import check_gain
from model_export.verify.speculation import (
    CALL_BYTES,
    COLUMN_COSTS,
    Drafting,
    draft,
    predict,
    step_cost,
)


def marks(text: str) -> NDArray[np.bool_]:
    """Returns whether each guess comes true: "1101" has one that does not."""
    return np.array([each == "1" for each in text])


def test_decoding_goes_from_draft_to_draft_as_ids_come_true() -> None:
    # Of three ids each: 110|1, then 0|.., then 111|.; what ends beyond the text is not counted.
    assert draft([marks("110" + "0" + "111" + "1" + "11")], 3) == Drafting(
        ids=3, calls=3, accepted=5, judged=7
    )


def test_texts_do_not_run_into_each_other() -> None:
    assert draft([marks("11"), marks("11")], 1) == Drafting(ids=1, calls=2, accepted=2, judged=2)


@pytest.mark.parametrize("ids", range(1, 8))
def test_of_guesses_that_all_come_true_a_call_gives_each_and_one_more(ids: int) -> None:
    found = draft([marks("1" * 200)], ids)
    assert (found.ids_a_call, found.acceptance) == (1 + ids, 1.0)


def test_of_guesses_that_never_come_true_a_call_gives_its_own_id() -> None:
    found = draft([marks("0" * 200)], 7)
    assert (found.ids_a_call, found.acceptance) == (1.0, 0.0)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_guesses_that_come_true_by_chance_give_the_sum_of_its_powers(share: float) -> None:
    random = np.random.default_rng(0).random(200_000) < share
    found = draft([random], 4)
    assert found.acceptance == pytest.approx(share, abs=0.01)
    assert found.ids_a_call == pytest.approx(sum(share**n for n in range(5)), rel=0.01)


def test_without_a_text_that_is_long_enough_nothing_is_gained() -> None:
    found = draft([marks("11")], 7)
    assert (found.ids_a_call, found.acceptance) == (1.0, 0.0)


def test_the_gain_is_that_of_the_best_number_of_ids() -> None:
    sure, never = predict({"text": [marks("1" * 100)]}, 0.1), predict({"text": [marks("0" * 9)]}, 1)
    assert sure.best.ids == 7
    assert sure.best.gain == pytest.approx(8 / (COLUMN_COSTS[7] + 0.7))
    assert never.best.ids == 1
    assert never.best.gain == pytest.approx(1 / (COLUMN_COSTS[1] + 1))
    assert [each.ids for each in sure.gains] == [*range(1, 8)]


def test_kinds_of_text_count_alike_however_long_they_are() -> None:
    both = predict({"text": [marks("0" * 1000)], "chats": [marks("1" * 100)]}, 0.0)
    assert both.acceptance == 0.5
    assert both.by_kind == both.agreement == {"text": 0.0, "chats": 1.0}
    best = both.best
    assert best.ids_a_call == 1 + best.ids / 2
    alone, sure = COLUMN_COSTS[best.ids], COLUMN_COSTS[best.ids] / (1 + best.ids)
    assert best.gain == pytest.approx(2 / (alone + sure))


def test_a_step_costs_its_share_of_the_bytes_and_of_what_every_call_takes() -> None:
    assert step_cost(100e6, 100e6) == 1
    assert step_cost(0, 980e6) == pytest.approx(CALL_BYTES / 1e9)


def test_a_draft_that_would_not_pay_is_refused_with_its_figures_and_what_to_do() -> None:
    poor = predict({"text": [marks("100" * 50)], "chats": [marks("1" * 50)]}, 0.8)
    with pytest.raises(ExportError) as raised:
        check_gain(poor, DraftTable(layers=12))
    said = str(raised.value)
    assert "0.75 of its guesses come true (text 0.51, chats 1.00)" in said
    assert f"{poor.best.gain:.2f} times the speed" in said
    assert f"min_gain is {MIN_DRAFT_GAIN:g}. Instead of 12 name fewer layers" in said
    assert said.endswith("or leave [draft] out.")
    with pytest.raises(ExportError, match="Name another recipe"):
        check_gain(poor, DraftTable(recipe="smollm2-135m"))


def test_a_draft_that_pays_or_whose_recipe_takes_any_gain_is_kept() -> None:
    check_gain(predict({"text": [marks("1" * 50)]}, 0.1), DraftTable(layers=1))
    check_gain(predict({"text": [marks("0" * 50)]}, 1.0), DraftTable(layers=1, min_gain=0))
