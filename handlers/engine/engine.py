"""The engine: loads a decoder once, takes prompts, and gives their ids step by step."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence as Items
from typing import TYPE_CHECKING

from handlers.engine.driver import EngineDriver, RequestHandle, notify
from handlers.engine.params import FinishReason, GenerationStats, Prompt, SamplingParams, Step
from handlers.engine.prefix_cache import open_prefix
from handlers.engine.request_validator import RequestValidator
from handlers.engine.scheduler import Event, Scheduler
from handlers.engine.sequence import Sequence
from handlers.errors import (
    ArtifactError,
    InvalidRequest,
    Overloaded,
    as_request_error,
    ends_a_task,
)

if TYPE_CHECKING:
    from handlers.artifact.manifest import Artifact
    from handlers.config import Settings
    from handlers.engine.batch import ModelRunner
    from handlers.engine.draft_model import DraftModel
    from handlers.errors import RequestError

log = logging.getLogger(__name__)


class Generation(RequestHandle):
    """Iterates over the steps of one submission: `async for`, or `for` where no thread runs.

    The last step of each sequence has a finish reason. A caller that leaves early calls
    `cancel()`; otherwise the sequences keep their slots to their ends.
    """

    def __init__(self, sequences: Items[Sequence], engine: Engine) -> None:
        super().__init__(engine)
        self._sequences = sequences
        self._steps: deque[Step] = deque()
        self._unfinished = len(sequences)

    @property
    def ready(self) -> bool:
        """Returns whether there is a step."""
        return bool(self._steps)

    @property
    def fault(self) -> RequestError | None:
        """Returns why a sequence failed, once a step has had FinishReason.FAULT."""
        faults = (sequence.fault for sequence in self._sequences)
        return next((fault for fault in faults if fault is not None), None)

    def stats(self, index: int = 0) -> GenerationStats:
        """Returns what the prompt at this index of the submission has taken so far."""
        return self._sequences[index].stats()

    def cancel(self) -> None:
        """Frees the slots at the next step. From any thread, any number of times."""
        for sequence in self._sequences:
            sequence.cancelled = True

    def cancel_one(self, index: int) -> None:
        """Frees one slot, as `cancel` does: that sequence ends with a step of its own."""
        self._sequences[index].cancelled = True

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> Step:
        if not self._unfinished:
            raise StopIteration
        self.wait_inline()
        return self._take()

    def __aiter__(self) -> Generation:
        return self

    async def __anext__(self) -> Step:
        if not self._unfinished:
            raise StopAsyncIteration
        await self.wait()
        return self._take()

    def _take(self) -> Step:
        step = self._steps.popleft()
        self._unfinished -= step.finish_reason is not None
        return step

    def deliver(self, step: Step) -> None:
        """Adds a step. Called by the engine, from the thread that runs it."""
        self._steps.append(step)


class Engine(EngineDriver[Sequence, Generation]):
    """Continuous batching over one session. Any thread may call the public methods."""

    def __init__(
        self,
        runner: ModelRunner,
        *,
        eos_token_ids: Items[int],
        slots: int,
        context_length: int,
        prefill_chunk: int,
        prompt_lookup: bool,
        queue_limit: int,
        draft: DraftModel | None = None,
    ) -> None:
        super().__init__(limit=slots + queue_limit)
        self.vocab_size = runner.vocab_size
        self.slots = slots
        self.context_length = context_length
        """Tokens of prompt and answer together."""
        self.baked_tokens = len(runner.baked_ids)
        """Tokens of the baked prefix that prompts may begin with; 0 without one."""
        self._validator = RequestValidator(
            runner.vocab_size, frozenset(eos_token_ids), context_length
        )
        self._scheduler = Scheduler(
            runner,
            slots=slots,
            context_length=context_length,
            prefill_chunk=prefill_chunk,
            prompt_lookup=prompt_lookup,
            draft=draft,
        )

    @classmethod
    def load(cls, artifact: Artifact, settings: Settings) -> Engine:
        """Loads the graph and allocates the cache. Raises ArtifactError and SettingsError."""
        # Here, since numpy alone is enough to import the engine.
        from handlers.engine.session import Session, kernel_versions

        started = time.perf_counter()
        manifest = artifact.manifest
        context_length = min(settings.context_length, manifest.context_length)
        loading = None
        if manifest.draft is not None and settings.draft_model:
            from handlers.engine.draft_loading import DraftLoading

            loading = DraftLoading(artifact, settings, context_length)
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
            session.attach_prefix(prefix)
        engine = cls(
            session,
            eos_token_ids=manifest.eos_token_ids,
            slots=settings.slots,
            context_length=context_length,
            prefill_chunk=settings.prefill_chunk,
            prompt_lookup=settings.prompt_lookup,
            queue_limit=settings.queue_limit,
            draft=None if loading is None else loading.finish(session, prefix),
        )
        engine.load_ms = (time.perf_counter() - started) * 1000.0
        return engine

    @property
    def guess_rate(self) -> float | None:
        """The share of a draft model's guesses that come true, None where there is none."""
        return self._scheduler.guess_rate

    @property
    def running(self) -> int:
        """Requests that hold a slot, without cancelled ones, which hold it until the next step."""
        return sum(not sequence.cancelled for sequence in self._scheduler.running)

    @property
    def waiting(self) -> int:
        """Requests that wait for a slot."""
        return max(0, len(self._wanted()) - self.running)

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
            self._validator.sequence(prompt, index, now, deadline)
            for index, prompt in enumerate(prompts)
        ]
        generation = Generation(sequences, self)
        self._enqueue(sequences, generation)
        return generation

    def _refuse_if_full(self, count: int) -> None:
        if count > self._limit:
            raise InvalidRequest(
                f"This request wants {count} answers at once, but the server holds "
                f"{self._limit}: ask for fewer."
            )
        if len(self._wanted()) + count > self._limit:
            raise Overloaded(
                f"{self.slots} requests are running and {self._limit - self.slots} wait, which is "
                f"all the queue holds: try again later."
            )

    def _schedule(self, request: Sequence) -> None:
        self._scheduler.add(request)

    def _step(self) -> None:
        try:
            self._empty_inbox()
            self._deliver(self._run_scheduler())
        # Reported through every generation. A panic of llguidance's is no Exception.
        except BaseException as error:
            self._end_all(FinishReason.FAULT, as_request_error(error, "The scheduler failed"))
            if ends_a_task(error):  # of the main thread, where that runs the engine
                raise

    def _run_scheduler(self) -> list[Event]:
        """Raises RuntimeError where nothing was done, which would be waited for without an end."""
        calls = self._scheduler.num_model_calls
        events = self._scheduler.step(time.monotonic())
        if not events and self._scheduler.num_model_calls == calls:
            raise RuntimeError("there are sequences, and nothing is computed for any of them")
        return events

    def _abort_all(self) -> None:
        self._end_all(FinishReason.CANCELLED)

    def _end_all(self, reason: FinishReason, fault: RequestError | None = None) -> None:
        """Ends every sequence that has not ended, wherever a bug may have left it.

        The engine can serve the next one then.
        """
        self._scheduler.clear()
        for sequence in self._drop_inbox():
            sequence.fault = fault
            self._deliver_end(sequence, Step(None, reason, sequence.index))

    def _deliver_end(self, sequence: Sequence, step: Step) -> None:
        """Delivers a last step once: tried again at every step, it would fail at every step."""
        try:
            self._deliver([(sequence, step)])
        except BaseException as error:
            with self._changed:
                self._live.pop(sequence, None)
            if ends_a_task(error):
                raise
            log.exception("A request could not be told that it has ended.")

    def _deliver(self, events: list[Event]) -> None:
        now = time.monotonic()
        generations: set[Generation] = set()
        try:
            with self._changed:
                for sequence, step in events:
                    generation = self._live[sequence]
                    generations.add(generation)
                    sequence.record_delivery(step, now)
                    generation.deliver(step)
                    if step.finish_reason is not None:
                        del self._live[sequence]
        finally:
            notify(generations)  # also those before a delivery that failed
