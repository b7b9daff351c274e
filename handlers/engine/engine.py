"""The engine: load once, submit prompts, get ids.

Puts the parts together: session, scheduler, and the crank that somebody turns. Knows no text and
no HTTP. Called by handlers/text and, to verify what it exported, by model_export.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING

from handlers.engine.baked import open_prefix
from handlers.engine.consumer import wake
from handlers.engine.crank import Crank
from handlers.engine.generation import Generation
from handlers.engine.intake import Intake
from handlers.engine.params import FinishReason, Prompt, SamplingParams, Step
from handlers.engine.scheduler import Event, Scheduler
from handlers.engine.sequence import Sequence
from handlers.errors import (
    STOPPING,
    ArtifactError,
    InvalidRequest,
    NotReady,
    Overloaded,
    as_request_error,
    ends_a_task,
)

if TYPE_CHECKING:
    from handlers.artifact.manifest import Artifact
    from handlers.config import Settings
    from handlers.engine.batch import Runner
    from handlers.errors import RequestError

log = logging.getLogger(__name__)


class Engine(Crank):
    """Continuous batching over one session. Every public method may be called from any thread."""

    def __init__(
        self,
        runner: Runner,
        *,
        vocab_size: int,
        eos_token_ids: Items[int],
        slots: int,
        context_length: int,
        prefill_chunk: int,
        prompt_lookup: bool,
        queue_limit: int,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.slots = slots
        self.context_length = context_length
        """Tokens of prompt and answer together."""
        self.baked_tokens = len(runner.baked)
        """Tokens of the baked prefix that prompts may begin with; 0 without one."""
        self.load_ms = 0.0
        """Milliseconds that `load` took."""
        self._intake = Intake(vocab_size, frozenset(eos_token_ids), context_length)
        self._limit = slots + queue_limit
        self._scheduler = Scheduler(
            runner,
            slots=slots,
            context_length=context_length,
            prefill_chunk=prefill_chunk,
            prompt_lookup=prompt_lookup,
        )
        self._live: dict[Sequence, Generation] = {}
        self._inbox: deque[Sequence] = deque()
        """Both are guarded by `_changed`."""

    @classmethod
    def load(cls, artifact: Artifact, settings: Settings) -> Engine:
        """Loads the graph and allocates the cache. Raises ArtifactError and SettingsError."""
        # Here, since numpy alone is enough to import the engine.
        from handlers.engine.session import Session, kernel_versions

        started = time.perf_counter()
        manifest = artifact.manifest
        context_length = min(settings.context_length, manifest.context_length)
        session = Session(
            artifact.graph, threads=settings.threads, slots=settings.slots, capacity=context_length
        )
        if session.vocab_size != manifest.vocab_size:
            raise ArtifactError(
                f"{artifact.graph} has {session.vocab_size} logits where its manifest says "
                f"{manifest.vocab_size}: export the model again."
            )
        prefix = open_prefix(artifact, context_length, kernel_versions)
        if prefix is not None:
            session.attach(prefix)
        engine = cls(
            session,
            vocab_size=session.vocab_size,
            eos_token_ids=manifest.eos_token_ids,
            slots=settings.slots,
            context_length=context_length,
            prefill_chunk=settings.prefill_chunk,
            prompt_lookup=settings.prompt_lookup,
            queue_limit=settings.queue_limit,
        )
        engine.load_ms = (time.perf_counter() - started) * 1000.0
        return engine

    @property
    def running(self) -> int:
        """Requests that hold a slot. A cancelled one holds it until the next step, uncounted."""
        return sum(not sequence.cancelled for sequence in self._scheduler.running)

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return max(0, self._wanted() - self.running)

    def submit(
        self, prompt_ids: Items[int], params: SamplingParams, deadline: float | None = None
    ) -> Generation:
        """Queues one prompt. Raises what `submit_all` raises."""
        return self.submit_all([Prompt(prompt_ids, params)], deadline)

    def submit_all(self, prompts: Items[Prompt], deadline: float | None = None) -> Generation:
        """Queues all prompts, or none. `deadline` is `time.monotonic()` seconds.

        Raises InvalidRequest, ContextLengthExceeded, Overloaded, NotReady.
        """
        now = time.monotonic()
        sequences = [
            self._intake.sequence(prompt, index, now, deadline)
            for index, prompt in enumerate(prompts)
        ]
        generation = Generation(sequences, self)
        with self._changed:
            self._refuse_if_full(len(sequences))
            self._live.update(dict.fromkeys(sequences, generation))
            self._inbox.extend(sequences)
            self._changed.notify()
        return generation

    def _refuse_if_full(self, count: int) -> None:
        if not self._accepting:
            raise NotReady(STOPPING)
        if count > self._limit:
            raise InvalidRequest(
                f"This request wants {count} answers at once, but the server holds "
                f"{self._limit}: ask for fewer."
            )
        if self._wanted() + count > self._limit:
            raise Overloaded(
                f"{self.slots} requests are running and {self._limit - self.slots} wait, which is "
                f"all the queue holds: try again later."
            )

    def _wanted(self) -> int:
        """Requests that have not ended and that nobody has cancelled."""
        with self._changed:
            return sum(not sequence.cancelled for sequence in self._live)

    def _turn(self) -> None:
        try:
            self._empty_inbox()
            self._deliver(self._step())
        # Reported through every generation. A panic of llguidance's is no Exception.
        except BaseException as error:
            self._end_all(FinishReason.FAULT, as_request_error(error, "The scheduler failed"))
            if ends_a_task(error):  # of the main thread, where that runs the engine
                raise

    def _step(self) -> list[Event]:
        """Raises RuntimeError where nobody gets on, which would be waited for without an end."""
        calls = self._scheduler.calls
        events = self._scheduler.step(time.monotonic())
        if not events and self._scheduler.calls == calls:
            raise RuntimeError("there are sequences, and nothing is computed for any of them")
        return events

    def _busy(self) -> bool:
        return bool(self._live)

    def _end(self) -> None:
        self._end_all(FinishReason.CANCELLED)

    def _end_all(self, reason: FinishReason, fault: RequestError | None = None) -> None:
        """Ends every sequence that has not ended, wherever a bug may have left it.

        The engine can serve the next one then.
        """
        self._scheduler.clear()
        with self._changed:
            self._inbox.clear()
            everyone = list(self._live)
        for sequence in everyone:
            sequence.fault = fault
            self._deliver_end(sequence, Step(None, reason, sequence.index))

    def _deliver_end(self, sequence: Sequence, step: Step) -> None:
        """Delivers a last step once: tried again at every turn, it would fail at every turn."""
        try:
            self._deliver([(sequence, step)])
        except BaseException as error:
            with self._changed:
                self._live.pop(sequence, None)
            if ends_a_task(error):
                raise
            log.exception("A request could not be told that it has ended.")

    def _empty_inbox(self) -> None:
        with self._changed:
            while self._inbox:
                self._scheduler.add(self._inbox.popleft())

    def _deliver(self, events: list[Event]) -> None:
        now = time.monotonic()
        generations: set[Generation] = set()
        try:
            with self._changed:
                for sequence, step in events:
                    generation = self._live[sequence]
                    generations.add(generation)
                    sequence.deliver(step, now)
                    generation.deliver(step)
                    if step.finish_reason is not None:
                        del self._live[sequence]
        finally:
            wake(generations)  # who has got something, also where the next one's failed
