"""Stand-ins for modules that a library imports and this program never, or seldom, uses.

functions-framework imports flask, werkzeug and cloudevents for its synchronous side and for
CloudEvents: 70 ms of Cloud Run's start. jinja2's loaders and cache, for templates in files, import
OpenSSL and tempfile: 7 ms.
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
def lazy_imports(*modules: str) -> Iterator[None]:
    """Gives whatever the block imports stand-ins for `modules`, each named in full.

    Within the block their names can be imported, called, and written in annotations. Using one
    after it imports the real module; so does every later import statement. A class cannot derive
    from a stand-in, and `isinstance` with one raises TypeError. No other thread may import or use
    `modules` before the block ends.
    """
    absent = [name for name in modules if name not in sys.modules]
    sys.modules.update({name: _LazyObject(name) for name in absent})  # type: ignore[misc]
    before, _LazyObject.recording = _LazyObject.recording, True
    try:
        yield
    finally:
        _LazyObject.recording = before
        for name in absent:
            del sys.modules[name]


class _LazyObject:
    """Stands for a module, a name in one, or the result of calling one."""

    recording = False
    """True within the block: attributes and calls give further stand-ins."""

    def __init__(self, name: str, find: Callable[[], Any] | None = None) -> None:
        self._name = name
        self._find = cache(find or partial(resolve_name, name))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system and typing ask what kind of thing this is
            raise AttributeError(name)
        if self.recording:
            return _LazyObject(f"{self._name}.{name}")
        return getattr(self._find(), name)

    def __call__(self, *values: Any, **named: Any) -> Any:
        if self.recording:
            return _LazyObject(f"{self._name}()", lambda: self._find()(*values, **named))
        return self._find()(*values, **named)
