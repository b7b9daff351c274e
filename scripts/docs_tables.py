"""Writes the tables of docs/ that the code decides: `python -m scripts.docs_tables [--check]`.

A table stands between two comments, `<!-- table: NAME -->` and `<!-- end -->`. The code gives its
rows and what it knows of them; a cell of prose is the page's own and is kept. `--check` changes
nothing and fails where a page differs from the code, or a row has no prose yet.
"""

from __future__ import annotations

import ast
import difflib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

import handlers.config
from handlers.api import unsupported_fields
from handlers.api.parsing import RequestBody
from handlers.api.routes import COMMON, ROUTES
from handlers.api.routing import Route, load_name
from handlers.config import Settings
from handlers.engine.params import SamplingParams
from handlers.errors import RequestError

ROOT = Path(__file__).resolve().parent.parent
API = ROOT / "docs" / "api.md"
SETTINGS = ROOT / "docs" / "settings.md"
LAYOUT = ROOT / "docs" / "layout.md"
BLOCK = re.compile(r"(?<=<!-- table: )([\w/-]+)( -->\n\n)(.*?)(?=\n<!-- end -->)", re.DOTALL)
MISSING = "(say it here)"

Row = list[str]
Body = type[RequestBody]
"""The struct of a request's body."""


def main(arguments: list[str]) -> int:
    """Returns 1 where `--check` finds a difference."""
    wrong = [page for page in (API, SETTINGS, LAYOUT) if _write(page, check="--check" in arguments)]
    for page in wrong:
        print(f"{page.relative_to(ROOT)} differs from the code: run python -m scripts.docs_tables")
    return 1 if wrong else 0


def _write(page: Path, *, check: bool) -> bool:
    """Writes the page, or returns whether it would change it or has a row without prose."""
    before = page.read_text(encoding="utf-8")
    after = BLOCK.sub(lambda found: found[1] + found[2] + _block(found[1], found[3]), before)
    if not check:
        page.write_text(after, encoding="utf-8")
        return MISSING in after
    sys.stdout.writelines(difflib.unified_diff(before.splitlines(True), after.splitlines(True)))
    return before != after or MISSING in before


def _block(name: str, old: str) -> str:
    return TABLES[name](old) if name in TABLES else folder(ROOT / name, "**/*.py")


def ground_floor(_old: str) -> str:
    """The files of the runtime that are in no folder."""
    return folder(ROOT / "handlers", "*.py")


def folder(path: Path, pattern: str) -> str:
    """The files of a folder with the first sentence of each."""
    files = [file for file in sorted(path.glob(pattern)) if not _is_empty(file)]
    rows = [[_code(str(file.relative_to(path))), _first_line(file)] for file in files]
    return _table(("file", "what it does"), rows, "")


def paths(old: str) -> str:
    """Every path, its methods, and the page's words."""
    rows = {path: [_code(path), ", ".join(route.methods)] for path, route in _routes().items()}
    return _table(("path", "method", "what it does"), rows.values(), old)


def tasks(_old: str) -> str:
    """Every task and the paths that it has in addition to the common ones."""
    rows = [
        [_code(task), ", ".join(_code(path) for path in table if path not in COMMON)]
        for task, table in ROUTES.items()
    ]
    common = ", ".join(_code(path) for path in COMMON)
    return _table(("task", f"paths, in addition to {common}"), rows, "")


def generating_fields(old: str) -> str:
    """The fields that every generating endpoint takes; the engine knows most of their defaults."""
    head = ("field", "values", "default", "meaning")
    defaults = {
        field.name: str(field.default).lower()
        if isinstance(field.default, bool)
        else f"{field.default:g}"
        for field in msgspec.structs.fields(SamplingParams)
        if field.name not in ("max_tokens", "seed") and isinstance(field.default, int | float)
    }
    prose = _prose(old)
    rows = []
    for name in _fields(_common_base(*GENERATING)):
        values, default, *meaning = prose.get((_code(name),), [MISSING, MISSING, MISSING])
        if name in defaults:
            default = defaults[name] + default.removeprefix(default.partition(",")[0])
        rows.append([_code(name), values, default, *meaning])
    return _table(head, rows, "")


def openai_fields(old: str) -> str:
    """The fields that chats and completions take in addition."""
    return _table(("field", "values", "default", "meaning"), _rows(_openai_names()), old)


def thinking_fields(old: str) -> str:
    """The fields that every generating endpoint which writes a conversation takes in addition."""
    names = _own(_common_base(*CONVERSING), _fields(_common_base(*GENERATING)))
    return _table(("field", "values", "meaning"), _rows(names), old)


def encoder_fields(old: str) -> str:
    """The fields that every endpoint of an encoder takes."""
    names = _fields(_common_base(*ENCODING))
    return _table(("field", "values", "default", "meaning"), _rows(names), old)


def own_fields(old: str) -> str:
    """The fields of each path that the tables above do not have."""
    shared = {path: _fields(_common_base(*GENERATING)) for path in GENERATING}
    shared |= {path: _fields(_common_base(*CONVERSING)) for path in CONVERSING}
    shared |= {path: (*shared[path], *_openai_names()) for path in OPENAI}
    shared |= {path: _fields(_common_base(*ENCODING)) for path in ENCODING}
    shared[INFILL] = _fields(_common_base(*GENERATING))
    listed = (*GENERATING, INFILL, *ENCODING, "/tokenize", "/detokenize")
    rows = [
        [_code(path), _code(name)]
        for path in listed
        for name in _own(body_of(path), shared.get(path, ()))
    ]
    return _table(("path", "field", "values", "meaning"), rows, old)


def refused_fields(_old: str) -> str:
    """The fields that each path refuses by name."""
    rows = [*_refused("all that generate", GENERATING), *_refused("all that encode", ENCODING)]
    rows += _refused(None, ("/tokenize",))
    return _table(("paths", "fields"), rows, "")


def ignored_fields(_old: str) -> str:
    """The fields that are known and change nothing."""
    return _codes(unsupported_fields.IGNORED) + "\n"


def ignored_details(_old: str) -> str:
    """The fields that are ignored because they only add to one that is refused."""
    return _codes(unsupported_fields.IGNORED_DETAILS) + "\n"


def ignored_by_responses(_old: str) -> str:
    """The fields that `/v1/responses` alone ignores."""
    return _ignored_by("/v1/responses")


def ignored_by_messages(_old: str) -> str:
    """The fields that `/v1/messages` alone ignores."""
    return _ignored_by("/v1/messages")


def _ignored_by(path: str) -> str:
    return _codes(sys.modules[body_of(path).__module__].IGNORED) + "\n"


def errors(old: str) -> str:
    """Every error that an answer may be."""
    rows = [[kind.__name__, str(kind.status), kind.code] for kind in _subclasses(RequestError)]
    return _table(("error", "status", "code", "when"), rows, old)


def settings(_old: str) -> str:
    """The table in handlers/config.py, after a look at its names and defaults."""
    lines = (handlers.config.__doc__ or "").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if "|" in line]
    read = _Recorder()
    Settings.from_environ(read)
    for name, default, _ in rows[2:]:
        if name not in read.names:
            raise ValueError(f"handlers/config.py describes {name}, which nothing reads.")
        given = {} if default == "none" or " " in default else {name: default}
        if Settings.from_environ(given) != Settings.from_environ({}):
            raise ValueError(f"handlers/config.py says that {name} is {default} by default.")
    described = {name for name, _, _ in rows[2:]}
    if undescribed := [n for n in read.names if n not in described and not n.startswith("AWS_")]:
        raise ValueError(f"handlers/config.py does not describe {', '.join(undescribed)}.")
    return _table(
        ("variable", "default", "meaning"), ([_code(row[0]), *row[1:]] for row in rows[2:]), ""
    )


TABLES: Mapping[str, Callable[[str], str]] = {
    "paths": paths,
    "tasks": tasks,
    "generating-fields": generating_fields,
    "openai-fields": openai_fields,
    "thinking-fields": thinking_fields,
    "encoder-fields": encoder_fields,
    "own-fields": own_fields,
    "refused-fields": refused_fields,
    "ignored-fields": ignored_fields,
    "ignored-details": ignored_details,
    "ignored-by-responses": ignored_by_responses,
    "ignored-by-messages": ignored_by_messages,
    "errors": errors,
    "settings": settings,
    "handlers/ground": ground_floor,
}
OPENAI = ("/v1/chat/completions", "/v1/completions")
GENERATING = (*OPENAI, "/v1/responses", "/v1/messages", "/generate")
INFILL = "/infill"
CONVERSING = ("/v1/chat/completions", "/v1/responses", "/generate")
ENCODING = ("/v1/embeddings", "/v1/classify", "/v1/rerank")


class _Recorder(dict[str, str]):
    """An empty environment that notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        self.names.append(name)
        return default


def _is_empty(file: Path) -> bool:
    """Returns whether a file has one docstring and nothing more."""
    return file.name == "__init__.py" and len(ast.parse(file.read_text(encoding="utf-8")).body) < 2


def _first_line(file: Path) -> str:
    """The first sentence of its docstring."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or MISSING
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=[.]) (?=[A-Z])", paragraph)[0].replace("|", "\\|")


def _routes() -> dict[str, Route]:
    return {path: route for table in ROUTES.values() for path, route in table.items()}


def body_of(path: str) -> Body:
    """The struct of what is posted there, a decoder's where both kinds of model have the path."""
    route = next(table[path] for table in ROUTES.values() if path in table)
    body: Body = next(load_name(one.request) for one in route.operations if one.request)
    return body


def _common_base(*listed: str) -> Body:
    """The nearest class from which the bodies of all these paths come."""
    first, *others = (body_of(path) for path in listed)
    base: Body = next(
        kind for kind in first.__mro__ if all(issubclass(one, kind) for one in others)
    )
    return base


def _fields(body: Body) -> tuple[str, ...]:
    return body.__struct_fields__


def _own(body: Body, shared: Iterable[str]) -> list[str]:
    return [name for name in _fields(body) if name not in shared]


def _openai_names() -> list[str]:
    """The fields of one type in chats and in completions that the other paths need not have."""
    chat, text = ({one.name: one for one in msgspec.structs.fields(body_of(p))} for p in OPENAI)
    own = _own(body_of(OPENAI[0]), _fields(_common_base(*GENERATING)))
    return [name for name in own if name in text and text[name].type == chat[name].type]


def _refused(common_name: str | None, listed: tuple[str, ...]) -> Iterator[Row]:
    unsupported = {path: dict.fromkeys(body_of(path).unsupported) for path in listed}
    common: list[str] = []
    if common_name:
        first, *others = unsupported.values()
        common = [name for name in first if all(name in other for other in others)]
        yield [common_name, _codes(common)]
    chats = unsupported_fields.CHAT_ONLY
    for path, names in unsupported.items():
        own = [name for name in names if name not in common]
        if set(chats) <= set(own):
            own = [name for name in own if name not in chats]
            yield [_code(path), f"{_codes(own)}, and what only a chat has: {_codes(chats)}"]
        else:
            yield [_code(path), _codes(own)]


def _subclasses(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    for one in kind.__subclasses__():
        yield one
        yield from _subclasses(one)


def _rows(names: Iterable[str]) -> list[Row]:
    return [[_code(name)] for name in names]


def _table(head: tuple[str, ...], rows: Iterable[Row], old: str) -> str:
    """A table in the old one's order, with its last cells where the code does not give them."""
    lines = [head, ("---",) * len(head)]
    named = {tuple(row[: _key(head)]): row for row in rows}
    order = [key for key in _prose(old) if key in named]
    for key in dict.fromkeys([*order, *named]):
        row = named[key]
        missing = [MISSING] * (len(head) - len(row))
        lines.append((*row, *_prose(old, given=len(row)).get(key, missing)))
    return "".join(_line(cells) for cells in lines)


def _line(cells: Iterable[str]) -> str:
    """A row of a table, without a second blank around a cell with nothing in it."""
    row = "|".join(f" {cell} " if cell else " " for cell in cells)
    return f"|{row}|\n".replace("| --- ", "|---").replace("---|---", "---|---")


def _key(head: tuple[str, ...]) -> int:
    """Returns how many cells name a row."""
    return 2 if head[:2] == ("path", "field") else 1


def _prose(table: str, given: int = 1) -> dict[tuple[str, ...], Row]:
    """The cells of each row after those that the code gives, by those that name the row."""
    lines = table.strip().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    if not cells:
        return {}
    key = _key(tuple(cells[0]))
    return {tuple(row[:key]): row[given:] for row in cells[2:]}


def _code(text: str) -> str:
    return f"`{text}`"


def _codes(names: Iterable[str]) -> str:
    return ", ".join(_code(name) for name in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
