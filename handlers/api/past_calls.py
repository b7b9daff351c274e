"""Brings a call of an earlier answer into the form that chat templates expect.

The conversation has it as it was: cut short, or written by another server. It is not run again, so
nothing of it is refused. Called by chat/messages.py and responses/items.py.
"""

from __future__ import annotations

from typing import Any

import msgspec


def past_call(name: str | None, arguments: object, call_id: object = None) -> dict[str, Any]:
    """Makes a member of a message's `tool_calls`. An id may have been a number."""
    function = {"name": name or "", "arguments": _template_arguments(arguments)}
    identity = "" if call_id is None else str(call_id)
    return {"id": identity, "type": "function", "function": function}


def _template_arguments(given: object) -> dict[str, Any] | str:
    """The arguments as a template needs them: it writes them with `tojson`, so as an object.

    What is not the JSON of an object stays the text that it is.
    """
    if isinstance(given, dict):
        return given
    text = given if isinstance(given, str) else msgspec.json.encode(given).decode()
    try:
        arguments = msgspec.json.decode(text.strip() or "{}")
    except (msgspec.DecodeError, RecursionError):
        return text
    if arguments is None:
        return {}
    return arguments if isinstance(arguments, dict) else text
