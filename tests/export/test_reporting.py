"""Progress is told now and then, with the time that is left."""

from __future__ import annotations

from model_export.reporting import Progress


def test_progress_says_how_much_is_done_and_how_long_the_rest_takes() -> None:
    lines: list[str] = []
    now = [0.0]
    progress = Progress(lines.append, 46, lambda done: f"{done} of 46", lambda: now[0])
    for second, amount, kept in [(1, 10, True), (4, 1, False), (9, 1, False), (11, 30, False)]:
        now[0] = second
        progress.add(amount, kept=kept)
    # 12 are done, of which the first ten took this run no time: 9 s for two, and 34 are left.
    assert lines == ["  12 of 46, 3 min left"]
    now[0] = 40
    progress.add(3)
    assert lines[1:] == ["  45 of 46, 1 s left"]
    progress.add(1)
    assert len(lines) == 2
