"""The encoder: loads a graph once, takes inputs, and gives a row for each.

Inputs of requests that wait at the same time are computed together.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from handlers.encoder.batching import Batcher, pad
from handlers.encoder.request import EncodeRequest
from handlers.engine.driver import EngineDriver, notify
from handlers.errors import (
    SHUT_DOWN,
    ArtifactError,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFault,
    InvalidRequest,
    NotReady,
    Overloaded,
    as_request_error,
    ends_a_task,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from numpy.typing import NDArray

    from handlers.artifact.manifest import Artifact
    from handlers.config import Settings
    from handlers.encoder.batching import EncoderBatch, QueuedInput
    from handlers.encoder.request import EncoderInput
    from handlers.errors import RequestError


class EncoderRunner(Protocol):
    """Runs batches: EncoderSession, or a test's."""

    def run(self, batch: EncoderBatch) -> NDArray[np.float32]:
        """Returns [rows, width]. Raises EngineFault when the call fails."""


class Encoder(EngineDriver[EncodeRequest, EncodeRequest]):
    """Dynamic batching over one session. Any thread may call the public methods."""

    def __init__(
        self,
        runner: EncoderRunner,
        *,
        width: int,
        vocab_size: int,
        max_tokens: int,
        limit: int,
    ) -> None:
        """`width`: of a row. `limit`: requests that are held at once."""
        super().__init__(limit=limit)
        self.width = width
        self.vocab_size = vocab_size
        self.context_length = max_tokens
        """Tokens of one input, special tokens included."""
        self._runner = runner
        self._batcher = Batcher()

    @classmethod
    def load(cls, artifact: Artifact, settings: Settings) -> Encoder:
        """Loads the graph of an artefact. Raises ArtifactError."""
        # Here, since numpy alone is enough to import the encoder.
        from handlers.encoder.session import EncoderSession

        started = time.perf_counter()
        info = artifact.encoder
        session = EncoderSession(artifact.graph, threads=settings.threads)
        if session.width != (info.dimensions or len(info.labels)):
            raise ArtifactError(
                f"{artifact.graph} gives rows of {session.width}, where its manifest says "
                f"{info.dimensions or len(info.labels)}: export the model again."
            )
        encoder = cls(
            session,
            width=session.width,
            vocab_size=artifact.manifest.vocab_size,
            max_tokens=min(settings.context_length, info.max_tokens),
            limit=settings.slots + settings.queue_limit,
        )
        encoder.load_ms = (time.perf_counter() - started) * 1000.0
        return encoder

    @property
    def running(self) -> int:
        """Requests of which something has been computed."""
        return sum(request.started is not None for request in self._wanted())

    @property
    def waiting(self) -> int:
        """Requests of which nothing has been computed."""
        return sum(request.started is None for request in self._wanted())

    def encode(self, inputs: Sequence[EncoderInput]) -> NDArray[np.float32]:
        """Encodes in the calling thread: [inputs, width]. Raises what `submit` raises."""
        return self.submit(inputs).rows_inline()

    def submit(
        self, inputs: Sequence[EncoderInput], deadline: float | None = None
    ) -> EncodeRequest:
        """Queues all inputs, or none. `deadline` is `time.monotonic()` seconds.

        Raises InvalidRequest, ContextLengthExceeded, Overloaded, NotReady.
        """
        self._check(inputs)
        request = EncodeRequest(
            inputs, self, width=self.width, submitted=time.monotonic(), deadline=deadline
        )
        self._enqueue([request], request)
        return request

    def _check(self, inputs: Sequence[EncoderInput]) -> None:
        """Refuses what ONNX Runtime would fail on, for all requests in the same call."""
        if not inputs:
            raise InvalidRequest("There is no input: send at least one.")
        for index, each in enumerate(inputs):
            if not len(each.ids):
                raise InvalidRequest(f"The input at {index} is empty: send at least one token.")
            if len(each.ids) > self.context_length:
                raise ContextLengthExceeded(
                    f"The prompt is too long: the input at {index} has {len(each.ids)} tokens, and "
                    f"the model takes {self.context_length}. Shorten it."
                )
        ids = np.concatenate([each.ids for each in inputs])
        if ids.min() < 0 or ids.max() >= self.vocab_size:
            raise InvalidRequest(f"An input has a token id outside 0 to {self.vocab_size - 1}.")

    def _refuse_if_full(self, count: int) -> None:
        held = len(self._wanted())
        if held + count > self._limit:
            raise Overloaded(f"{held} requests are held, which is all that may: try again later.")

    def _schedule(self, request: EncodeRequest) -> None:
        if request in self._live:
            self._contain([request], partial(self._batcher.add, request))

    def _step(self) -> None:
        try:
            self._end_overdue(time.monotonic())
            self._empty_inbox()
            self._compute(self._batcher.next())
        except BaseException as error:  # reported through every request
            self._end_all(as_request_error(error, "The encoder failed"))
            if ends_a_task(error):  # of the main thread, where that runs the encoder
                raise

    def _abort_all(self) -> None:
        self._end_all(NotReady(SHUT_DOWN))

    def _end_all(self, error: RequestError) -> None:
        self._batcher = Batcher()  # a bug may have left anything in it
        self._finish(self._drop_inbox(), error)

    def _end_overdue(self, now: float) -> None:
        """Ends the requests that were cancelled, or whose deadline has passed."""
        with self._changed:
            leaving = [each for each in self._live if each.cancelled or each.deadline <= now]
        if leaving:
            late = DeadlineExceeded(
                "The time for this request passed before all of it was computed. Try again, with "
                "less input or a longer timeout."
            )
            self._finish(leaving, late)

    def _compute(self, inputs: Sequence[QueuedInput]) -> None:
        """Runs one call. A fault ends the requests that were in it, and no other."""
        if not inputs:
            self._check_progress()
            return
        requests = {each.request for each in inputs}
        now = time.monotonic()
        for request in requests:
            request.started = request.started or now
        self._contain(requests, partial(self._run_batch, inputs))

    def _check_progress(self) -> None:
        """Raises RuntimeError for a request that would wait without an end."""
        with self._changed:
            if len(self._live) > len(self._inbox):
                raise RuntimeError("there are requests, and nothing is computed for any of them")

    def _contain(self, requests: Collection[EncodeRequest], work: Callable[[], None]) -> None:
        """Does some work for these requests. What it raises ends them, and no other.

        A request chooses how much memory some of it takes: a MemoryError is that request's.
        """
        try:
            work()
        except BaseException as error:  # reported through each of them
            if ends_a_task(error):  # of the main thread, where that runs the encoder
                raise
            self._finish(requests, as_request_error(error, "The encoder failed"))

    def _run_batch(self, inputs: Sequence[QueuedInput]) -> None:
        rows = self._runner.run(pad([each.input for each in inputs]))
        finite = np.all(np.isfinite(rows), axis=1).tolist()
        broken = {each.request for each, fine in zip(inputs, finite, strict=True) if not fine}
        self._finish(broken, EngineFault("The model gives no numbers for an input."))
        complete = [
            each.request
            for each, row in zip(inputs, rows, strict=True)
            if each.request.put(each.index, row)
        ]
        self._finish([request for request in complete if request not in broken])

    def _finish(self, requests: Iterable[EncodeRequest], error: RequestError | None = None) -> None:
        """Ends those of the requests that have not ended yet."""
        now = time.monotonic()
        with self._changed:
            ended = [request for request in requests if request in self._live]
            for request in ended:
                request.end(now, error)
                del self._live[request]
        notify(ended)
        for request in ended:
            self._batcher.remove(request)


def apply_activation(logits: NDArray[np.float32], activation: str) -> NDArray[np.float64]:
    """Turns logits into scores [rows, labels], by EncoderInfo's `activation`."""
    exact = logits.astype(np.float64)
    if activation == "softmax":
        weights = np.exp(exact - exact.max(axis=1, keepdims=True))
        shares: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
        return shares
    if activation == "sigmoid":
        odds: NDArray[np.float64] = np.exp(-np.logaddexp(0.0, -exact))
        return odds
    return exact
