"""Makes the drafts of each decode call, and judges them by the ids that come.

For each sequence: what prompt lookup finds, what the draft model could guess, and which of them the
policy thinks worth computing. A draft model that fails, of whatever cause, costs its sequences
their guesses and nothing else.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from handlers.engine.params import MAX_DRAFT_TOKENS
from handlers.engine.speculative import Proposal, Selection, SpeculationPolicy
from handlers.errors import ends_a_task

if TYPE_CHECKING:
    from collections.abc import Callable
    from collections.abc import Sequence as Items

    from handlers.engine.batch import Batch
    from handlers.engine.draft_model import DraftModel
    from handlers.engine.sequence import Sequence

LOGGER = logging.getLogger(__name__)


class PendingDraft(msgspec.Struct, frozen=True, eq=False):
    """A draft that the call under way computes."""

    sequence: Sequence
    ids: list[int]
    guessed: bool
    """By the draft model."""
    known: int
    """Ids of the answer before the call."""
    computed: int
    """Tokens that the cache held before the call."""


class Drafter:
    """The drafts of all sequences, and the times and rates that decide on them."""

    def __init__(
        self,
        *,
        prompt_lookup: bool,
        draft: DraftModel | None,
        vocab_size: int,
        clock: Callable[[], float],
    ) -> None:
        self._prompt_lookup = prompt_lookup
        self._draft = draft
        self._vocab_size = vocab_size
        self._clock = clock
        self._policy = SpeculationPolicy(0.0 if draft is None else draft.acceptance)
        self._pending: list[PendingDraft] = []
        self._steps = 0
        """Of the draft model, for the call under way."""
        self._logged: set[type[BaseException]] = set()
        """The kinds of failures of the draft model of which the log has a line."""

    @property
    def guess_rate(self) -> float | None:
        """The share of the draft model's guesses that come true lately, None where there is none.

        Of guesses before which all of the same draft have come true.
        """
        return None if self._draft is None else self._policy.start_rate

    def drafts(self, decoding: Items[Sequence]) -> list[list[int]]:
        """Returns the ids to compute after each sequence's newest one; often none."""
        if not self._prompt_lookup and self._draft is None:
            return [[] for _ in decoding]
        rows = _rows(decoding)
        proposals = self._proposals(decoding, rows)
        selected = self._policy.select(proposals, rows)
        guesses = self._guess(decoding, selected, rows)
        self._pending = [
            PendingDraft(
                sequence,
                guess or each.found,
                bool(guess),
                known=len(sequence.tokens),
                computed=sequence.num_computed_tokens,
            )
            for sequence, each, guess in zip(decoding, selected, guesses, strict=True)
        ]
        return [pending.ids for pending in self._pending]

    def judge(self, batch: Batch, seconds: float) -> None:
        """Counts what the call has given, once its ids are chosen. `seconds` that it took."""
        if not self._prompt_lookup and self._draft is None:
            return
        hits = [self._judge(pending) for pending in self._pending]
        self._policy.timer.record(batch.rows, batch.columns, seconds)
        self._policy.record(batch.rows, batch.columns, self._steps, len(self._pending), sum(hits))

    def clear(self) -> None:
        """Forgets what the draft model's cache holds, which a bug may have made wrong."""
        if self._draft is not None:
            self._draft.clear()

    def _judge(self, pending: PendingDraft) -> int:
        """Returns how many ids of a draft spared a call: that came true, and were not forced."""
        sequence = pending.sequence
        if pending.guessed:
            self._judge_guesses(pending)
        hits = sequence.num_computed_tokens - pending.computed - 1
        sequence.drafted_tokens += len(pending.ids)
        sequence.accepted_tokens += hits
        return hits

    def _judge_guesses(self, pending: PendingDraft) -> None:
        sequence = pending.sequence
        for drafted, chosen in zip(pending.ids, sequence.tokens[pending.known :], strict=False):
            rate = self._rate(sequence)
            sequence.guess_rate = self._policy.judged(rate, drafted == chosen)
            if drafted != chosen:
                break

    def _rate(self, sequence: Sequence) -> float:
        return self._policy.start_rate if sequence.guess_rate is None else sequence.guess_rate

    def _proposals(self, decoding: Items[Sequence], rows: int) -> list[Proposal]:
        found = [sequence.lookup() if self._prompt_lookup else ([], 0.0) for sequence in decoding]
        limits = [0] * len(decoding)
        if self._draft is not None and not self._policy.paused:
            limits = self._limits(self._draft, decoding, rows)
        return [
            Proposal(ids, rate, limit, self._rate(sequence))
            for sequence, (ids, rate), limit in zip(decoding, found, limits, strict=True)
        ]

    def _limits(self, draft: DraftModel, decoding: Items[Sequence], rows: int) -> list[int]:
        """Returns how many ids the draft model can guess for each sequence.

        None before the first id of an answer, for which somebody waits. None while its cache lacks
        much of a sequence: if that is worth it, it is computed, in chunks.
        """
        limits, left = [], draft.chunk_size
        for sequence in decoding:
            limit = min(draft.room(sequence), sequence.most_drafted) if sequence.tokens else 0
            if limit:
                try:
                    lacking = draft.lacking(sequence)
                    if lacking > MAX_DRAFT_TOKENS:
                        limit = 0
                        left -= self._follow(draft, sequence, lacking, left, rows)
                except BaseException as error:
                    if ends_a_task(error):
                        raise
                    self._log_failure(error)
                    limit = 0
            limits.append(limit)
        return limits

    def _follow(
        self, draft: DraftModel, sequence: Sequence, lacking: int, limit: int, rows: int
    ) -> int:
        """Computes a chunk that the draft model lacks, if that is worth it. Returns its tokens."""
        answered = len(sequence.tokens)
        left = sequence.max_new_tokens - answered
        rate = self._rate(sequence)
        if not limit or not self._policy.worth_following(rate, lacking, rows, answered, left):
            return 0
        begun = self._clock()
        computed = draft.follow(sequence, limit)
        again = lacking <= answered
        self._policy.record_following(rows, computed, self._clock() - begun, again)
        return computed

    def _guess(
        self, decoding: Items[Sequence], selected: Items[Selection], rows: int
    ) -> list[list[int]]:
        """Lets the draft model guess for the sequences that were selected for it."""
        self._steps = 0
        guesses: list[list[int]] = [[] for _ in decoding]
        places = [place for place, each in enumerate(selected) if each.guesses]
        if not places or self._draft is None:
            return guesses
        calls, begun = self._draft.num_calls, self._clock()
        try:
            drafts = self._draft.propose(
                [decoding[place] for place in places],
                [selected[place].guesses for place in places],
                self._vocab_size,
            )
        except BaseException as error:
            if ends_a_task(error):
                raise
            self._log_failure(error)
            return guesses
        self._steps = self._draft.num_calls - calls
        self._policy.draft_timer.record(rows, 1, (self._clock() - begun) / self._steps)
        for place, draft in zip(places, drafts, strict=True):
            guesses[place] = draft
        return guesses

    def _log_failure(self, error: BaseException) -> None:
        """Logs once, for each kind of failure, that the draft model failed."""
        if type(error) not in self._logged:
            self._logged.add(type(error))
            LOGGER.warning("The draft model failed, and its sequences go on without: %r", error)


def _rows(decoding: Items[Sequence]) -> int:
    """Returns the slots that a call over these sequences covers."""
    return decoding[-1].held_slot - decoding[0].held_slot + 1
