from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.text.stop_strings import StopStrings

# Two letters and short strings: stops overlap one another and themselves in every way.
letters = st.text("ab", min_size=1, max_size=4)
stop_sets = st.lists(letters, max_size=4).map(tuple)
piece_lists = st.lists(st.text("abc", max_size=5), max_size=12)


def answer_by_definition(text: str, stops: tuple[str, ...]) -> str:
    """Reads character by character; of the stops that are complete at one, the longest ends it."""
    for end in range(1, len(text) + 1):
        complete = [stop for stop in stops if text[:end].endswith(stop)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@given(pieces=piece_lists, stops=stop_sets)
def test_the_answer_does_not_depend_on_how_the_text_was_cut(
    pieces: list[str], stops: tuple[str, ...]
) -> None:
    machine = StopStrings(stops)

    answer = "".join(map(machine.push, pieces)) + machine.flush()

    assert answer == answer_by_definition("".join(pieces), stops)


@given(pieces=piece_lists, stops=stop_sets, ending=st.text("abc", max_size=5))
def test_nothing_leaves_that_a_later_piece_could_make_part_of_a_stop_string(
    pieces: list[str], stops: tuple[str, ...], ending: str
) -> None:
    machine = StopStrings(stops)

    sent = "".join(map(machine.push, pieces))

    assert answer_by_definition("".join(pieces) + ending, stops).startswith(sent)


@given(pieces=piece_lists, stops=stop_sets)
def test_no_more_is_held_back_than_the_beginning_of_a_stop_string(
    pieces: list[str], stops: tuple[str, ...]
) -> None:
    machine = StopStrings(stops)

    sent = "".join(map(machine.push, pieces))

    pending = "".join(pieces)[len(sent) :]
    assert machine.matched or not pending or any(stop.startswith(pending) for stop in stops)


@pytest.mark.parametrize(
    ("stops", "pieces", "answer", "matched"),
    [
        (("END",), ["one E", "N", "D two"], "one ", "END"),
        (("END",), ["one E", "N", "E two"], "one ENE two", None),
        (("\n\n", "User:"), ["a\n", "\nUser:"], "a", "\n\n"),
        (("bc", "abcd"), ["abcd"], "a", "bc"),
        (("bc", "abc"), ["abc"], "", "abc"),
        (("aab",), ["a", "a", "a", "b"], "a", "aab"),
        (("🛑",), ["go 🛑 stop"], "go ", "🛑"),
        ((), ["all", " of it"], "all of it", None),
    ],
)
def test_answers_end_before_the_first_complete_stop_string(
    stops: tuple[str, ...], pieces: list[str], answer: str, matched: str | None
) -> None:
    machine = StopStrings(stops)

    assert "".join(map(machine.push, pieces)) + machine.flush() == answer
    assert machine.matched == matched


def test_nothing_follows_a_match() -> None:
    machine = StopStrings(("stop",))

    assert machine.push("a stop b") == "a "
    assert machine.matched
    assert machine.push("more") == ""
    assert machine.flush() == ""
