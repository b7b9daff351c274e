"""Imports that wait until something uses what they bring.

functions-framework imports flask, werkzeug and cloudevents for its synchronous side and for
CloudEvents: 70 ms of a start, of which an asynchronous HTTP function never uses anything. Used by
Cloud Run's process, and by template.py for jinja2's templates in files.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from functools import cache, partial
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextmanager
def deferred(*modules: str) -> Iterator[None]:
    """What the block imports gets stand-ins for `modules`, which are to be named in full.

    Within the block their names can be imported, called, and written in annotations. Using one
    after it imports the real module; so does every later import statement. A class derived from a
    stand-in is more than it can bear, and so is `isinstance` with one: TypeError. No other thread
    may import or use `modules` meanwhile.
    """
    absent = [name for name in modules if name not in sys.modules]
    sys.modules.update({name: _Later(name) for name in absent})  # type: ignore[misc]
    before, _Later.waiting = _Later.waiting, True
    try:
        yield
    finally:
        _Later.waiting = before
        for name in absent:
            del sys.modules[name]


class _Later:
    """A module, a name in one, or what calling one gives."""

    waiting = False
    """Within the block: whatever is asked for is one more stand-in."""

    def __init__(self, name: str, find: Callable[[], Any] | None = None) -> None:
        self._name = name
        self._find = cache(find or partial(resolve_name, name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system and typing ask what kind of thing this is
            raise AttributeError(name)
        return _Later(f"{self._name}.{name}") if self.waiting else getattr(self._find(), name)

    def __call__(self, *values: Any, **named: Any) -> Any:
        if self.waiting:
            return _Later(f"{self._name}()", lambda: self._find()(*values, **named))
        return self._find()(*values, **named)
