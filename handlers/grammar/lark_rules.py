"""Writes Lark in llguidance's dialect: texts, texts up to a mark, lists of members, and JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from handlers.grammar.sources import styled

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from handlers.grammar.schema.relax import EnforceableSchema

NEVER_ESCAPED = frozenset("_<>")
# A list of more members is cut into halves, which are rules: rules in a chain take stack.
MAX_RUN = 16
# Characters of schemas that have a copy of their definitions each. 240,000 become more symbols than
# a grammar may have.
MAX_COPIED = 100_000


class LarkRules:
    """The rules of one grammar. What is written twice is one rule."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.schemas: dict[str, EnforceableSchema] = {}
        """The rules that are JSON, by their names."""
        self.characters = 0
        """Of the rules so far, as llguidance is given them."""
        self._copied = 0
        """Characters of schemas with copies of definitions."""
        self._names: dict[str, str] = {}

    def rule(self, body: str) -> str:
        """Adds a rule, and returns its name."""
        return self._add("r", body)

    def terminal(self, body: str) -> str:
        """Adds a terminal: the lexer reads it as a whole. Returns its name."""
        return self._add("T", body)

    def recursive_rule(self, key: str) -> tuple[str, bool]:
        """Returns the name of a rule that `define` gives its body, and whether it is new."""
        is_new = key not in self._names
        if is_new:
            self._names[key] = f"v{len(self._names)}"
        return self._names[key], is_new

    def define(self, name: str, body: str) -> None:
        """Adds a rule by its name."""
        self.lines.append(f"{name}: {body}")
        self.characters += len(json.dumps(self.lines[-1]))

    def json(self, source: EnforceableSchema) -> str:
        """Adds a rule that is JSON of a schema, and returns its name."""
        key = f"json {source.strict} {json.dumps(source.schema)}"
        if key not in self._names:
            self._names[key] = f"j{len(self._names)}"
            self.schemas[self._names[key]] = source
            self.characters += len(json.dumps(json.dumps(styled(source.schema))))
        return self._names[key]

    def has_room_for_copy(self, size: int) -> bool:
        """Counts a schema in that has a copy of definitions. Returns whether all fit together.

        A first one always does: it costs what it costs in JSON.
        """
        fits = not self._copied or self._copied + size <= MAX_COPIED
        self._copied += size if fits else 0
        return fits

    def _add(self, letter: str, body: str) -> str:
        key = f"{letter} {body}"
        if key not in self._names:
            self._names[key] = f"{letter}{len(self._names)}"
            self.define(self._names[key], body)
        return self._names[key]


class Member(msgspec.Struct, frozen=True):
    """A member of a list whose members come in order, such as a property of an object."""

    body: str
    required: bool


def members(
    rules: LarkRules,
    listed: Sequence[Member],
    *,
    extra: str = "",
    lead: str = "",
    separator: str = "",
) -> str:
    """Returns Lark for a list of members in order, of which those that are not required may lack.

    `extra`: a member that may follow them any number of times, empty for none. `lead`: the text
    before each member, after the `separator` that stands between two.

    The two are one lexeme: the lexer does not go back, and what follows the list may begin as a
    separator does.
    """
    return _Members(rules, listed, extra, lark_string(lead), lark_string(separator + lead)).body()


class _Members:
    def __init__(
        self, rules: LarkRules, listed: Sequence[Member], extra: str, first: str, following: str
    ) -> None:
        """`first` and `following`: what stands before the first member, and before others."""
        self._rules = rules
        self._listed = listed
        self._first_lead, self._lead = first, following
        self._extra = f"{first} {extra}" if extra else ""
        self._more = f"({following} {extra})*" if extra else ""

    def body(self) -> str:
        count = len(self._listed)
        if self._first_lead == self._lead:
            return f"{self._run(0, count)} {self._more}".strip()
        if not count:
            return f"({self._extra} {self._more})?" if self._extra else ""
        whole = f"({self._first(0, count)}) {self._more}"
        if any(member.required for member in self._listed):
            return whole
        return f"({whole} | {self._extra} {self._more})?" if self._extra else f"({whole})?"

    def _first(self, start: int, stop: int) -> str:
        """Returns some of the members, as the first of the list."""
        first = self._listed[start]
        if first.required or stop - start == 1:
            return f"{self._first_lead} {first.body} {self._rest(start + 1, stop)}"
        middle = (start + stop) // 2
        either = f"{self._rules.rule(self._first(start, middle))} {self._rest(middle, stop)}"
        if any(member.required for member in self._listed[start:middle]):
            return either
        return f"{either} | {self._rules.rule(self._first(middle, stop))}"

    def _rest(self, start: int, stop: int) -> str:
        """Returns any of the members, after others."""
        body = self._run(start, stop)
        return self._rules.rule(body) if stop - start > 1 else body

    def _run(self, start: int, stop: int) -> str:
        if stop - start > MAX_RUN:
            middle = (start + stop) // 2
            return f"{self._rest(start, middle)} {self._rest(middle, stop)}"
        return " ".join(map(self._following, self._listed[start:stop]))

    def _following(self, member: Member) -> str:
        text = f"{self._lead} {member.body}"
        return text if member.required else f"({text})?"


def lark_string(text: str) -> str:
    """Returns the text as a string in Lark, empty for an empty text."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def one_of(bodies: Iterable[str]) -> str:
    """Returns Lark for one of some bodies."""
    return f"({' | '.join(bodies)})"


def escaped(text: str) -> str:
    """Returns the text as it stands in a regular expression of Lark."""
    return "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character.isalnum() or character in NEVER_ESCAPED:
        return character
    if character.isascii() and character.isprintable():
        return f"\\{character}"
    return f"\\x{{{ord(character):x}}}"


class Closing(msgspec.Struct, frozen=True):
    """The mark that ends a text. The text does not contain it, taken without white space around."""

    mark: str

    def literal(self, text: str) -> str | None:
        """Returns Lark for one text and the mark, None for a text that contains the mark."""
        core = self._core
        return None if core in text else lark_string(text + self.mark)

    def texts(self, *patterns: str, unlike: str = "") -> str:
        """Returns Lark for the texts that match all patterns, each with the mark.

        `patterns` are the insides of regular expressions; without any, all texts match. `unlike`:
        a pattern of what no text may be.
        """
        lead = self.mark[: len(self.mark) - len(self.mark.lstrip())]
        core, trail = self._core, self.mark[len(lead) + len(self._core) :]
        end = escaped(lead + core)
        matching = [f"/(?:{pattern}){end}/" for pattern in patterns or ["(?s:.*)"]]
        excluded = [f"~/(?s:.*){escaped(core)}(?s:.+)/"]
        excluded += [f"~/(?:{unlike}){end}/"] if unlike else []
        expression = " & ".join([*matching, *excluded])
        return f"({expression}) {lark_string(trail)}"

    @property
    def _core(self) -> str:
        return self.mark.strip() or self.mark
