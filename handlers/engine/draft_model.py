"""The draft model: a small model that guesses what the model will say next.

It guesses greedily, an id a step, for several sequences at once. What it guesses changes how many
ids a call of the model gives, never which. It is one of two kinds:

    a sibling     has a cache of its own, a row for each slot, which follows lazily by ids: before
                  it guesses, what its cache lacks of the sequence is copied from any slot or from
                  the baked prefix, or computed in chunks
    own layers    the model's own first layers and its head. It shares the cache of these layers,
                  whose keys and values are the same bits, so it lacks nothing; what it writes is
                  beyond the tokens that the model has computed, and the model writes over it

A call that fails, or logits that are no numbers, end guessing for the sequences of that call, and
nothing further.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from handlers.engine.batch import Row, ragged_batch, token_ids
from handlers.engine.params import MAX_DRAFT_TOKENS
from handlers.engine.prefix_cache import PrefixCache

if TYPE_CHECKING:
    from collections.abc import Sequence as Items
    from typing import Literal

    import numpy as np
    from numpy.typing import NDArray

    from handlers.engine.batch import ModelRunner
    from handlers.engine.sequence import Sequence


class DraftModel:
    """Guesses the next ids of sequences that hold a slot of the model's."""

    def __init__(
        self,
        runner: ModelRunner,
        *,
        slots: int,
        capacity: int,
        prefill_chunk: int,
        shares_cache: bool,
        acceptance: float,
    ) -> None:
        """`capacity`: tokens that its cache, or its positions, have room for in each slot.

        `acceptance`: the share of its guesses that the export has seen come true.
        """
        self.acceptance = acceptance
        self.recurrent = runner.recurrent
        self.num_calls = 0
        self.chunk_size = prefill_chunk
        """Tokens that it computes in one step of the engine to follow its sequences, at most."""
        self._runner = runner
        self._capacity = capacity
        self._prefixes = (
            None if shares_cache else PrefixCache(runner, slots=slots, capacity=capacity)
        )
        self._followed: list[int | None] = [None] * slots
        """The sequence, by its arrival, that `_held` is about."""
        self._held = [0] * slots
        """Tokens of it that the slot's cache is known to hold."""
        self._unable: list[int | None] = [None] * slots
        """The sequence, by its arrival, that cannot be guessed any more."""

    def room(self, sequence: Sequence) -> int:
        """Returns how many ids it can guess: 0 where a step failed, or the sequence outgrows it."""
        if self._unable[sequence.held_slot] == sequence.arrival:
            return 0
        # All guessed ids but the last are computed, after the newest one.
        return max(0, min(MAX_DRAFT_TOKENS, self._capacity - sequence.num_tokens + 1))

    def lacking(self, sequence: Sequence) -> int:
        """Returns how many tokens before the newest one its cache lacks, after what is copied.

        Raises ValueError where it does not know one of the ids, and guesses no more then.
        """
        slot, before = sequence.held_slot, sequence.num_tokens - 1
        same = self._followed[slot] == sequence.arrival
        known = self._held[slot] if same else 0
        ids = token_ids(sequence, known, sequence.num_tokens)
        if int(ids.max()) >= self._runner.vocab_size:
            self._give_up(sequence)
            raise ValueError(f"it knows no id from {self._runner.vocab_size} on")
        if self._prefixes is None:
            held = before
        elif same:
            held = known + self._prefixes.agreeing(slot, known, ids[:-1])
        else:
            held = self._prefixes.copy_longest(slot, ids[:-1]) if before else 0
        self._followed[slot], self._held[slot] = sequence.arrival, held
        return before - held

    def follow(self, sequence: Sequence, limit: int) -> int:
        """Computes tokens that its cache lacks, `limit` at most. Returns how many it has computed.

        After `lacking`. Raises what the call raises.
        """
        slot, ids = sequence.held_slot, token_ids(sequence, 0, sequence.num_tokens - 1)
        held = self._held[slot]
        if self._prefixes is not None:
            held = self._prefixes.copy_longest(slot, ids, held)
        chunk = ids[held : held + limit].tolist()
        if chunk:
            self._run([sequence], [Row(slot, held, chunk)], "none")
        self._held[slot] = held + len(chunk)
        return len(chunk)

    def propose(
        self, sequences: Items[Sequence], limits: Items[int], vocab_size: int
    ) -> list[list[int]]:
        """Returns guesses for each sequence, as many as its limit at most, in its `room`.

        `sequences` are in order of slot. After `lacking` of each, which was MAX_DRAFT_TOKENS at
        most: the first step computes these too. `vocab_size`: of the model, which may have fewer
        ids. Raises what a call raises.
        """
        drafts: list[list[int]] = [[] for _ in sequences]
        inputs = [self._inputs(sequence) for sequence in sequences]
        going = [place for place, limit in enumerate(limits) if limit]
        while going:
            logits = self._run(
                [sequences[place] for place in going], [inputs[place] for place in going], "last"
            )
            still = []
            for place, row in zip(going, logits, strict=True):
                token_id = int(row[:vocab_size].argmax())
                if not math.isfinite(row[token_id]):
                    self._give_up(sequences[place])
                    continue
                drafts[place].append(token_id)
                slot, past, ids = inputs[place]
                inputs[place] = Row(slot, past + len(ids), [token_id])
                if sequences[place].usable(drafts[place]) < len(drafts[place]):
                    drafts[place].pop()
                elif len(drafts[place]) < limits[place]:
                    still.append(place)
            going = still
        return drafts

    def clear(self) -> None:
        """Forgets what its cache holds of all sequences; the baked prefix stays."""
        self._followed = [None] * len(self._followed)
        if self._prefixes is not None:
            self._prefixes.drop_all()

    def _inputs(self, sequence: Sequence) -> Row:
        """Returns what the first step computes of a sequence: its newest token, and what lacks."""
        held = self._held[sequence.held_slot]
        ids = token_ids(sequence, held, sequence.num_tokens)
        return Row(sequence.held_slot, held, ids.tolist())

    def _run(
        self, sequences: Items[Sequence], rows: Items[Row], logits: Literal["last", "none"]
    ) -> NDArray[np.float32]:
        try:
            batch = ragged_batch(rows, logits)
            if self._prefixes is not None:
                self._prefixes.invalidate(batch)
            self.num_calls += 1
            found = self._runner.step(batch)
            if self._prefixes is not None:
                for slot, past, ids in rows:
                    self._prefixes.record(slot, past, ids)
        except BaseException:
            for sequence in sequences:
                self._give_up(sequence)
            raise
        return found

    def _give_up(self, sequence: Sequence) -> None:
        """Guesses nothing more for a sequence, and forgets what its slot's cache holds."""
        self._unable[sequence.held_slot] = sequence.arrival
        self._followed[sequence.held_slot] = None
        if self._prefixes is not None:
            self._prefixes.drop(sequence.held_slot)
