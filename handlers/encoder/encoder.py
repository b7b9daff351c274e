"""The encoder: load once, submit inputs, get a row for each.

Puts the parts together: session, batcher, and the crank that somebody turns. Inputs of requests
that wait at the same time are computed together. Knows no text and no HTTP. Called by the API and,
to verify what it exported, by model_export.
"""

from __future__ import annotations

import time
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from handlers.encoder.batch import Batch, Input, padded
from handlers.encoder.batcher import Batcher, Place
from handlers.encoder.encoding import Encoding
from handlers.engine.consumer import wake
from handlers.engine.crank import Crank
from handlers.errors import (
    SHUT_DOWN,
    STOPPING,
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
    from handlers.errors import RequestError


class Runner(Protocol):
    """What the encoder asks of a session."""

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """[rows, width]. Raises EngineFault when the call fails."""


class Encoder(Crank):
    """Dynamic batching over one session. Every public method may be called from any thread."""

    def __init__(
        self,
        runner: Runner,
        *,
        width: int,
        vocab_size: int,
        max_tokens: int,
        limit: int,
        load_ms: float = 0.0,
    ) -> None:
        """`width`: of a row. `limit`: requests that are held at once."""
        super().__init__()
        self.width = width
        self.vocab_size = vocab_size
        self.context_length = max_tokens
        """Tokens of one input, special tokens included."""
        self.load_ms = load_ms
        """Milliseconds that `load` took."""
        self._runner = runner
        self._limit = limit
        self._batcher = Batcher()
        self._live: dict[Encoding, None] = {}
        self._inbox: deque[Encoding] = deque()
        """Both are guarded by `_changed`."""

    @classmethod
    def load(cls, artifact: Artifact, settings: Settings) -> Encoder:
        """Loads the graph. Raises ArtifactError."""
        from handlers.encoder.session import Session  # numpy alone is enough to import the encoder

        started = time.perf_counter()
        info = artifact.encoder
        session = Session(artifact.graph, threads=settings.threads)
        if session.width != (info.dimensions or len(info.labels)):
            raise ArtifactError(
                f"{artifact.graph} gives rows of {session.width}, where its manifest says "
                f"{info.dimensions or len(info.labels)}: export the model again."
            )
        return cls(
            session,
            width=session.width,
            vocab_size=artifact.manifest.vocab_size,
            max_tokens=min(settings.context_length, info.max_tokens),
            limit=settings.slots + settings.queue_limit,
            load_ms=(time.perf_counter() - started) * 1000.0,
        )

    @property
    def running(self) -> int:
        """Requests of which something has been computed."""
        return sum(encoding.started is not None for encoding in self._wanted())

    @property
    def waiting(self) -> int:
        """Requests of which nothing has been computed."""
        return sum(encoding.started is None for encoding in self._wanted())

    def encode(self, inputs: Sequence[Input]) -> NDArray[np.float32]:
        """[inputs, width], where no thread turns the crank. Raises what `submit` raises."""
        return self.submit(inputs).rows_inline()

    def submit(self, inputs: Sequence[Input], deadline: float | None = None) -> Encoding:
        """Queues all inputs, or none. `deadline` is `time.monotonic()` seconds.

        Raises InvalidRequest, ContextLengthExceeded, Overloaded, NotReady.
        """
        self._check(inputs)
        encoding = Encoding(
            inputs, self, width=self.width, submitted=time.monotonic(), deadline=deadline
        )
        with self._changed:
            self._refuse_if_full()
            self._live[encoding] = None
            self._inbox.append(encoding)
            self._changed.notify()
        return encoding

    def _check(self, inputs: Sequence[Input]) -> None:
        """ONNX Runtime would fail on an id that the vocabulary does not have, for all in a call."""
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

    def _refuse_if_full(self) -> None:
        if not self._accepting:
            raise NotReady(STOPPING)
        held = len(self._wanted())
        if held >= self._limit:
            raise Overloaded(f"{held} requests are held, which is all that may: try again later.")

    def _wanted(self) -> list[Encoding]:
        """Requests that have not ended and that nobody has cancelled."""
        with self._changed:
            return [encoding for encoding in self._live if not encoding.cancelled]

    def _busy(self) -> bool:
        return bool(self._live)

    def _turn(self) -> None:
        try:
            self._retire(time.monotonic())
            self._empty_inbox()
            self._compute(self._batcher.next())
        except BaseException as error:  # reported through every request
            self._end_all(as_request_error(error, "The encoder failed"))
            if ends_a_task(error):  # of the main thread, where that runs the encoder
                raise

    def _end(self) -> None:
        self._end_all(NotReady(SHUT_DOWN))

    def _end_all(self, error: RequestError) -> None:
        self._batcher = Batcher()  # a bug may have left anything in it
        with self._changed:
            self._inbox.clear()
            everyone = list(self._live)
        self._finish(everyone, error)

    def _retire(self, now: float) -> None:
        """Who was cancelled, or whose time has passed, leaves."""
        with self._changed:
            leaving = [each for each in self._live if each.cancelled or each.deadline <= now]
        if leaving:
            late = DeadlineExceeded(
                "The time for this request passed before all of it was computed. Try again, with "
                "less input or a longer timeout."
            )
            self._finish(leaving, late)

    def _empty_inbox(self) -> None:
        with self._changed:
            while self._inbox:
                encoding = self._inbox.popleft()
                if encoding in self._live:
                    self._contain([encoding], partial(self._batcher.add, encoding))

    def _compute(self, places: Sequence[Place]) -> None:
        """One call. A fault ends the requests that were in it, and no other."""
        if not places:
            self._check_nobody_is_lost()
            return
        everyone = {place.encoding for place in places}
        now = time.monotonic()
        for encoding in everyone:
            encoding.started = encoding.started or now
        self._contain(everyone, partial(self._fill, places))

    def _check_nobody_is_lost(self) -> None:
        """Raises RuntimeError for a request that would wait without an end."""
        with self._changed:
            if len(self._live) > len(self._inbox):
                raise RuntimeError("there are requests, and nothing is computed for any of them")

    def _contain(self, encodings: Collection[Encoding], work: Callable[[], None]) -> None:
        """Some work for these requests. What it raises ends them, and no other.

        A request chooses how much memory some of it takes: a MemoryError is that request's.
        """
        try:
            work()
        except BaseException as error:  # reported through each of them
            if ends_a_task(error):  # of the main thread, where that runs the encoder
                raise
            self._finish(encodings, as_request_error(error, "The encoder failed"))

    def _fill(self, places: Sequence[Place]) -> None:
        rows = self._runner.run(padded([place.input for place in places]))
        finite = np.all(np.isfinite(rows), axis=1).tolist()
        broken = {place.encoding for place, fine in zip(places, finite, strict=True) if not fine}
        self._finish(broken, EngineFault("The model gives no numbers for an input."))
        whole = [
            place.encoding
            for place, row in zip(places, rows, strict=True)
            if place.encoding.put(place.index, row)
        ]
        self._finish([encoding for encoding in whole if encoding not in broken])

    def _finish(self, encodings: Iterable[Encoding], error: RequestError | None = None) -> None:
        """Those of them that have not ended yet."""
        now = time.monotonic()
        with self._changed:
            ended = [encoding for encoding in encodings if encoding in self._live]
            for encoding in ended:
                encoding.end(now, error)
                del self._live[encoding]
        wake(ended)
        for encoding in ended:
            self._batcher.remove(encoding)
