"""The white space that a pattern of a JSON schema matches: ASCII's alone.

Called by enforceable_schema.py.
"""

from __future__ import annotations


def with_ascii_spaces(pattern: str) -> str:
    r"""Writes ASCII's white space in place of `\s`: all readers of a pattern agree on that.

    In ECMA's and Python's expressions `\s` matches spaces of Unicode's too, in Go's and Java's it
    does not. `\S`, and `\s` in a negated class, stay Unicode's, which leaves them the fewest
    characters: what is written then matches for every validator. `\d` and `\w` need no such care,
    since llguidance reads them as ASCII's, as ECMA does.
    """
    if "\\s" not in pattern:
        return pattern
    text, escaped, negated, in_class = "", False, False, False
    for place, character in enumerate(pattern):
        if escaped:
            escaped = False
            text += r"[ \t\n\r\f\v]" if character == "s" and not negated else f"\\{character}"
            continue
        escaped = character == "\\"
        if character == "[" and not in_class:
            in_class, negated = True, pattern[place + 1 : place + 2] == "^"
        elif character == "]":
            in_class = negated = False
        text += "" if escaped else character
    return text
