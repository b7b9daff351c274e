"""Renders conversations in which what users wrote never becomes a control token.

A name such as <|im_end|> in a message would end the turn, and what follows it could pass for the
system's. So where a text has one, or may make one with the template's text around it, the first
characters of all names get a marker, a character that templates pass on: it is no white space to
strip, no letter to change, and JSON may escape it. In the rendered prompt the names without it
are the template's own, and the others are broken. Most conversations have none and are rendered as
they are.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from handlers.errors import InvalidRequest
from handlers.text.chat_template import too_deep
from handlers.text.control_tokens import ControlTokens, PromptText, shape
from handlers.text.tokenizer import TOOL_MARKERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from handlers.text.chat_template import ChatTemplate, Messages, PromptOptions, Tools

    Change = Callable[[str], str]

# Unicode's private use, for which nobody has a meaning.
MARKERS = range(0xE000, 0xF900)
_PRIVATE = "[\ue000-\uf8ff]"
_ESCAPED = r"(?i:\\u([ef][0-9a-f]{3}))"

_USERS = ("arguments", "parameters")
"""Members of a function whose own members have names by a user."""

_KEYWORDS = ("type", "properties", "required", "description", "items", "enum")
"""Of JSON Schema, which templates look for. No control token has such a name."""

# Where text of a template meets text of another origin: its strings, its data and expressions.
_SEAM = re.compile(r"['\"]|\{[{%]|[}%]\}")
_STRING = r"\s*(?:'([^']*)'|\"([^\"]*)\""
_SET = rf"\bset\s+(\w+)\s*={_STRING})"
_CUT = rf"\b(?:split|rsplit|replace|partition|rpartition)\({_STRING}|(\w+))"
_SPLIT = rf"\bsplit\({_STRING}|(\w+))"


class UserText:
    """Renders conversations by one template, for one tokenizer."""

    def __init__(self, template: ChatTemplate, added: Mapping[str, bool]) -> None:
        """`added`: the tokenizer's added tokens, and whether each is special."""
        self._template = template
        self._source = "\n".join(template.sources)
        written = (self._source, *TOOL_MARKERS, *template.dialect.marks())
        self._tokens = ControlTokens(added, " ".join(written))
        self._prefixes = {
            name[:length] for name in self._tokens.shapes for length in range(1, len(name))
        }
        self._rests, self._middles = self._after_the_templates()

    @cached_property
    def _cut(self) -> set[str]:
        """The strings that the template cuts out of texts, which may join what stood around."""
        return _strings_in(_CUT, self._source)

    @cached_property
    def _firsts(self) -> re.Pattern[str]:
        return self._first_characters(())

    @cached_property
    def _firsts_but_own(self) -> re.Pattern[str]:
        """The first characters, save of marks of thinking in an assistant's own text.

        They are those at which the template splits it, and those that open what these close.
        """
        thinking = self._template.dialect.thinking
        marks = thinking.begin + thinking.end if thinking else ""
        split_at = _strings_in(_SPLIT, self._source)
        closing = {name for name in split_at if name[1:2] == "/" or name in marks}
        return self._first_characters(
            {name for name in self._tokens.names if {name, _closing(name)} & closing}
        )

    def render(self, messages: Messages, tools: Tools | None, options: PromptOptions) -> PromptText:
        """Renders as ChatTemplate.prompt does, and finds the breaks. Raises as it does.

        Raises InvalidRequest for texts with every character that could be the marker.
        """
        given = [options.values, tools, *map(_without_role, messages)]
        if not any(map(self._is_risky, _strings(given))):
            return PromptText(self._template.prompt(messages, tools, options))
        marker = self._marker(given, options.field)
        try:
            prompt = self._template.prompt(
                [self._marked_message(message, marker) for message in messages],
                self._marked(tools, marker),
                replace(options, values=self._marked_values(options.values, marker)),
            )
        except RecursionError:
            raise too_deep(options.field) from None
        except InvalidRequest as error:
            raise InvalidRequest(str(error).replace(marker, ""), param=error.param) from None
        return self._broken(prompt, marker)

    def _is_risky(self, text: str) -> bool:
        """Returns whether a name may be in the prompt that has some of its characters from here."""
        if self._continues(text):
            return True
        if not any(first in text for first in self._tokens.firsts):
            return False
        return (
            self._tokens.occurs_in(text)
            or any(self._beginnings(text.rstrip()[-self._tokens.longest :]))
            or any(each in text for each in self._cut)
        )

    def _continues(self, text: str) -> bool:
        """Returns whether the text goes on with a name that the template's own text begins."""
        if not self._rests:
            return False
        head = shape(text.lstrip()[: self._tokens.longest])
        return head.rstrip() in self._middles or any(
            head[:length] in self._rests for length in range(1, len(head) + 1)
        )

    def _after_the_templates(self) -> tuple[set[str], set[str]]:
        """Returns the ends of names of which the template may write the beginning, as `'<' ~ key`.

        Also the middles of those of which it may write beginning and end.
        """
        source, longest = self._source, self._tokens.longest
        seams = [seam.span() for seam in _SEAM.finditer(source)]
        tails = [source[max(0, start - longest) : start].rstrip() for start, _ in seams]
        befores = {before for tail in tails for before in self._beginnings(tail)}
        rests = {
            name[len(before) :]
            for before in befores
            for name in self._tokens.shapes
            if name.startswith(before)
        }
        if not rests:
            return set(), set()
        heads = {shape(source[end : end + longest].lstrip()) for _, end in seams}
        afters = {head[:length] for head in heads for length in range(1, len(head) + 1)}
        middles = {
            rest[:length]
            for rest in rests
            for length in range(1, len(rest))
            if rest[length:] in afters
        }
        return rests, middles

    def _beginnings(self, tail: str) -> Iterator[str]:
        """Yields the beginnings of names with which a text ends."""
        for place, character in enumerate(tail):
            if character in self._tokens.firsts and (end := shape(tail[place:])) in self._prefixes:
                yield end

    def _first_characters(self, but: Iterable[str]) -> re.Pattern[str]:
        """Returns the pattern of the first characters of names, save of the names `but`.

        A letter stands in most texts: of those that begin names, only that of a whole name counts.
        """
        marks = "".join(first for first in self._tokens.firsts if not first.isalnum())
        names = [re.escape(name[1:]) for name in but]
        words = [name for name in self._tokens.names if name[0].isalnum()]
        own = f"(?!{'|'.join(names)})" if names else ""
        patterns = [f"[{re.escape(marks)}]{own}"] if marks else []
        patterns += [f"{name[0]}(?={re.escape(name[1:])})" for name in words]
        return re.compile("|".join(patterns) or r"(?!)")

    def _marker(self, given: object, field: str) -> str:
        """Returns a character that no text has, nor its escape."""
        texts = "\0".join((self._source, *_strings(given)))
        used = {*re.findall(_PRIVATE, texts)}
        used |= {chr(int(digits, 16)) for digits in re.findall(_ESCAPED, texts)}
        for marker in map(chr, MARKERS):
            if marker not in used:
                return marker
        raise InvalidRequest(
            "The messages have every character of Unicode's private use, U+E000 to U+F8FF, and "
            "the name of a special token: leave one of them out.",
            param=field,
        )

    def _marked_message(self, message: Mapping[str, Any], marker: str) -> dict[str, Any]:
        """Marks a message, but for its role, which is none of the user's words."""
        own = self._firsts_but_own if message["role"] == "assistant" else self._firsts
        marked = {
            name: self._marked(value, marker, self._firsts if name == "tool_calls" else own)
            for name, value in _without_role(message).items()
        }
        return {"role": message["role"], **marked}

    def _marked(self, value: Any, marker: str, firsts: re.Pattern[str] | None = None) -> Any:
        """Returns the value with the marker in all its strings."""
        firsts = firsts or self._firsts

        def change(text: str) -> str:
            marked = firsts.sub(rf"\g<0>{marker}", text)
            if not self._continues(text):
                return marked
            start = len(text) - len(text.lstrip())
            return f"{marked[:start]}{marker}{marked[start:]}"

        return _changed(value, change)

    def _marked_values(self, values: Mapping[str, Any], marker: str) -> dict[str, Any]:
        """Marks the values of a template's variables, whose own names are the template's."""
        return {
            name: self._marked({"arguments": value}, marker)["arguments"]
            for name, value in values.items()
        }

    def _broken(self, prompt: str, marker: str) -> PromptText:
        """Returns the prompt without markers, broken where they stood within names."""
        # A template may write JSON that escapes all but ASCII, or a list as Python does.
        pieces = re.split(rf"{marker}|\\u{ord(marker):04x}", prompt)
        places = [*accumulate(map(len, pieces))][:-1]
        text = "".join(pieces)
        breaks: set[int] = set()
        for start, end in self._tokens.find(text):
            breaks.update(places[bisect_right(places, start) : bisect_left(places, end)])
        return PromptText(text, sorted(breaks))


def _strings_in(calls: str, source: str) -> set[str]:
    """Returns the strings that a template's source gives to these calls, by variables also."""
    variables = {name: one or two for name, one, two in re.findall(_SET, source)}
    given = {one or two or variables.get(name, "") for one, two, name in re.findall(calls, source)}
    return {text.replace("\\n", "\n").replace("\\t", "\t") for text in given - {""}}


def _closing(name: str) -> str:
    """Returns the mark that closes what the mark `name` opens, as </think> does."""
    return f"{name[0]}/{name[1:]}"


def _strings(value: object) -> Iterator[str]:
    """Yields all strings within a value, the names of members included."""
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            rest += one
            rest += one.values()
        elif isinstance(one, list | tuple):
            rest += one


def _without_role(message: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in message.items() if name != "role"}


def _changed(value: Any, change: Change, users: bool = False) -> Any:
    """Returns the value with all its strings changed.

    `users`: whether the names of members are a user's, too, and not the interface's own.
    """
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {
            change(name) if users and name not in _KEYWORDS else name: member
            if name == "type" and not users
            else _changed(member, change, users or name in _USERS)
            for name, member in value.items()
        }
    if isinstance(value, list | tuple):
        return [_changed(member, change, users) for member in value]
    return value
