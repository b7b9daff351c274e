"""What to send instead of a refused field where leaving it out is not enough.

decoding.py writes it into the error.
"""

from __future__ import annotations

from collections.abc import Mapping

_NOTHING_STORED = (
    "nothing is stored here, so send the whole conversation as input; clients do so where their "
    "store is false"
)

INSTEAD: Mapping[str, str] = {
    "previous_response_id": _NOTHING_STORED,
    "conversation": _NOTHING_STORED,
    "chat_template": "POST what it would give to /v1/completions",
}
