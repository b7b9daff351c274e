"""A streamed chat, taken apart. Raises Failure where it is not what a client could read.

Knows the events of OpenAI's API; how they got here is known by endpoint.py. Called by checks.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from deploy.smoke.failure import Failure

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from deploy.smoke.endpoint import Piece

DONE = b"[DONE]"


@dataclass
class Streamed:
    """The content of one event, or of all events together."""

    text: str = ""
    arrivals: list[float] = field(default_factory=list)
    """Seconds since the request, one for each event with text."""
    tokens: int = 0
    is_finished: bool = False

    def add(self, seconds: float, part: Streamed) -> None:
        self.text += part.text
        self.arrivals += [seconds] if part.text else []
        self.tokens = part.tokens or self.tokens
        self.is_finished = self.is_finished or part.is_finished


def read(pieces: Iterable[Piece]) -> Streamed:
    """The whole stream: some text, its end, its count of tokens, and [DONE] once and last."""
    whole, is_done = Streamed(), False
    for seconds, data in _events(pieces):
        if is_done:
            raise Failure(f"the stream goes on after [DONE]: {_excerpt(data)}")
        is_done = data == DONE
        if not is_done:
            whole.add(seconds, _part(data))
    if not whole.arrivals:
        raise Failure("the stream had no text in it.")
    if not is_done:
        raise Failure("the stream broke off: its last event is not [DONE].")
    if not (whole.is_finished and whole.tokens > 0):
        raise Failure("the stream has no finish_reason, or no count of its tokens.")
    return whole


def _events(pieces: Iterable[Piece]) -> Iterator[tuple[float, bytes]]:
    """Server-sent events, each when it is complete."""
    rest = b""
    for piece in pieces:
        *events, rest = (rest + piece.data).split(b"\n\n")
        for event in events:
            yield piece.seconds, event.removeprefix(b"data:").strip()
    if rest.strip():
        raise Failure(f"the stream broke off within an event: {_excerpt(rest)}")


def _part(data: bytes) -> Streamed:
    try:
        event = json.loads(data.decode())
    except ValueError as error:
        raise Failure(f"an event of the stream is no JSON: {_excerpt(data)}") from error
    if isinstance(event, dict) and "error" in event:
        raise Failure(f"the stream brought an error: {_excerpt(data)}")
    try:
        choices, usage = event["choices"], event.get("usage")
        return Streamed(
            text="".join(choice["delta"].get("content") or "" for choice in choices),
            tokens=0 if usage is None else int(usage["completion_tokens"]),
            is_finished=any(choice.get("finish_reason") for choice in choices),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise Failure(f"an event is no part of a completion: {_excerpt(data)}") from error


def _excerpt(data: bytes) -> str:
    return data[:200].decode(errors="replace")
