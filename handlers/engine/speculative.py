"""Speculative decoding: decides how many guessed ids each decode call computes.

A guess is called a draft. It comes from prompt lookup (ngram_proposer.py), which costs nothing, or
from a draft model (draft_model.py), which takes a step for each id. A decode call computes the
drafted ids after each sequence's newest one:

    ids a call is expected to give      sum over its sequences of 1 + p + p^2 + ...
    time it takes                       the call's, and the draft model's steps, as measured

The width with the most ids for the time is taken, if that is more than without drafts. So nothing
has to be known of the machine or its kernels. Two bounds keep drafts that do not come true cheap:

    balance     ids that drafts have spared, less what they cost in calls of one column, and a
                small share of every call. None are computed while it is used up
    probes      where drafts do not pay, the draft model guesses one id now and then, so that a
                sequence that becomes easy is noticed; again at once where that came true

It changes what a call computes, never which ids come of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from handlers.engine.step_timer import StepTimer

if TYPE_CHECKING:
    from collections.abc import Sequence as Items

# The balance begins with START ids and holds at most MOST_BALANCE; each call adds ALLOWED. So what
# drafts lose is bounded by these, however wrong the rates are.
START_BALANCE = 2.0
MOST_BALANCE = 8.0
ALLOWED = 0.01

# Probes may cost this share of the time, and the time that so adds up is bounded.
PROBE_SHARE = 0.01
MOST_PROBES = 2.0

# How much faster a sequence should become for the draft model to compute what it lacks of it.
WORTH_FOLLOWING = 1.05

# How much the latest guessed id counts in a sequence's rate, and in that with which others begin.
RATE_WEIGHT = 0.1
START_RATE_WEIGHT = 0.02

# The same of the time for a token that the draft model's cache lacks.
FOLLOWING_WEIGHT = 0.25


class Selection(msgspec.Struct, frozen=True):
    """The drafted ids of one sequence that a decode call computes: found, or to be guessed."""

    found: list[int] = []
    guesses: int = 0


class Proposal(msgspec.Struct, frozen=True):
    """The ids that may be drafted for one sequence."""

    found: list[int]
    """What prompt lookup has found."""
    found_rate: float
    """The probability of each found id to come next after those before it."""
    limit: int = 0
    """Ids that the draft model may guess."""
    rate: float = 0.0
    """The probability of each guessed id to come next after those before it."""

    @property
    def guessed(self) -> bool:
        """Returns whether the draft model should guess, if it does, in place of what was found."""
        return self.limit > 0 and (not self.found or self.rate > self.found_rate)

    def source(self, guessing: bool) -> tuple[int, float]:
        """Returns how many ids can be drafted, and their rate. `guessing`: by the draft model too.

        Prompt lookup takes precedence, unless its ids come true more rarely.
        """
        if guessing and self.guessed:
            return self.limit, self.rate
        return len(self.found), self.found_rate

    def selection(self, count: int, guessing: bool) -> Selection:
        """Returns `count` of these ids at most."""
        if guessing and self.guessed:
            return Selection(guesses=min(count, self.limit))
        return Selection(found=self.found[:count])


class SpeculationPolicy:
    """Chooses the drafts of each decode call by what calls take and what drafts have given."""

    def __init__(self, acceptance: float = 0.0) -> None:
        """`acceptance`: the rate with which the draft model begins."""
        self.timer = StepTimer()
        """Of the model's calls."""
        self.draft_timer = StepTimer()
        """Of the draft model's steps, as calls of one column, by the rows of the model's call."""
        self.following = 0.0
        """Seconds that the draft model takes for a token that its cache lacks."""
        self.start_rate = acceptance
        """The rate with which a sequence's guesses are expected to come true at first."""
        self._balance = START_BALANCE
        self._probes = 0.0
        """The time, in calls of one column, that probes may take."""

    @property
    def paused(self) -> bool:
        """Returns whether drafts have lost what they may, so that none are computed for a while."""
        return self._balance <= 0

    def select(self, proposals: Items[Proposal], rows: int) -> list[Selection]:
        """Returns what is worth computing of each proposal; often nothing.

        `proposals` are those of all sequences that the call decodes, `rows` the slots that it
        covers.
        """
        width, guessing = self._width(proposals, rows)
        return [proposal.selection(width - 1, guessing) for proposal in proposals]

    def worth_following(
        self, rate: float, lacking: int, rows: int, answered: int, left: int
    ) -> bool:
        """Returns whether the draft model should compute what its cache lacks of a sequence.

        It should where it has paid by the time that the answer is twice as long, as nobody knows
        how long it will be; or where a probe is due.
        """
        narrow = self.timer.seconds(rows, 1)
        if narrow is None:
            return False
        cost = lacking * self.following / narrow
        if self._balance <= (min(cost, MOST_BALANCE / 2) if lacking <= answered else 0.0):
            return False
        times = self._times(rows, guessing=True)
        speed, _ = _best([(len(times) - 1, rate)], times)
        if speed > WORTH_FOLLOWING:
            return cost <= (speed - 1.0) * min(answered, left)
        return self._probes >= cost + times[1] - 1.0

    def record_following(self, rows: int, tokens: int, seconds: float, again: bool) -> None:
        """Counts what the draft model took for tokens that its cache lacked.

        `again`: of an answer alone, as where it had followed before. They are charged to the
        balance: where drafts hardly pay they come and go, and following again would gain nothing.
        """
        if not tokens:
            return
        weight = FOLLOWING_WEIGHT if self.following else 1.0
        self.following += weight * (seconds / tokens - self.following)
        narrow = self.timer.seconds(rows, 1)
        cost = 0.0 if narrow is None else tokens * self.following / narrow
        self._probes -= cost
        self._balance -= cost if again else 0.0

    def record(self, rows: int, columns: int, steps: int, sequences: int, hits: int) -> None:
        """Counts what a call has given. `steps`: of the draft model.

        `hits`: drafted ids that came true, over all `sequences`.
        """
        step = self._draft_ratio(rows) if steps else 0.0
        cost = self.timer.ratios(rows)[columns - 1] - 1.0 + steps * step
        gain = hits / sequences
        if math.isfinite(cost):
            self._balance = min(MOST_BALANCE, self._balance + ALLOWED + gain - cost)
        self._probes = min(MOST_PROBES, self._probes + PROBE_SHARE)
        if steps:
            self._probes = MOST_PROBES if gain >= cost else 0.0

    def judged(self, rate: float, came_true: bool) -> float:
        """Returns a sequence's rate after one more of its guesses has come true or not."""
        self.start_rate += START_RATE_WEIGHT * (came_true - self.start_rate)
        return rate + RATE_WEIGHT * (came_true - rate)

    def _width(self, proposals: Items[Proposal], rows: int) -> tuple[int, bool]:
        """Returns the columns of the call, and whether the draft model guesses."""
        if self.paused:
            return 1, False
        found = [proposal.source(guessing=False) for proposal in proposals]
        speed, width = _best(found, self._times(rows, guessing=False))
        if not any(proposal.limit for proposal in proposals):
            return width, False
        times = self._times(rows, guessing=True)
        if self.draft_timer.seconds(rows, 1) is None:  # what a step takes is found out by one id
            times = times[:2]
        guesses = [proposal.source(guessing=True) for proposal in proposals]
        guess_speed, guess_width = _best(guesses, times)
        if guess_speed > speed:
            return guess_width, True
        if width == 1 and self._probes >= times[1] - 1.0:
            return 2, True
        return width, False

    def _times(self, rows: int, *, guessing: bool) -> list[float]:
        """Returns the times of a call by its columns, over that of one without drafts."""
        times = self.timer.ratios(rows)
        step = self._draft_ratio(rows) if guessing else 0.0
        return [time + place * step for place, time in enumerate(times)]

    def _draft_ratio(self, rows: int) -> float:
        """Returns the time of a step of the draft model; 0 where it is not known, to try it."""
        step, narrow = self.draft_timer.seconds(rows, 1), self.timer.seconds(rows, 1)
        return 0.0 if step is None or narrow is None else step / narrow


def _best(sources: Items[tuple[int, float]], times: Items[float]) -> tuple[float, int]:
    """Returns the most ids for each sequence and time of a call without drafts, and its columns.

    Of equal ones the narrowest. `sources`: of each sequence how many ids can be drafted, and their
    rate.
    """
    speed, width = 1.0, 1
    count = float(len(sources))
    longest = max(length for length, _ in sources)
    for drafted in range(1, min(1 + longest, len(times))):
        count += sum(rate**drafted for length, rate in sources if length >= drafted)
        if count / len(sources) / times[drafted] > speed:
            speed, width = count / len(sources) / times[drafted], drafted + 1
    return speed, width
