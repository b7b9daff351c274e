"""The name of a request: the client's own where it sends one, else the adapter's.

Called by both adapters, which log it and send it back as `x-request-id`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADER = "x-request-id"

# It comes back in a header and stands in the log: nothing that either would have to escape.
_ACCEPTED = re.compile(r"[!-~]{1,128}")


def request_id(headers: Mapping[str, str], ours: str) -> str:
    """The client's where it is 1 to 128 printable ASCII characters without spaces, else `ours`."""
    given = headers.get(HEADER, "")
    return given if _ACCEPTED.fullmatch(given) else ours
