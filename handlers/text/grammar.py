"""Grammars: which ids may come next, so that an answer is valid by construction.

JSON, JSON Schema, regular expressions, Lark and GBNF become one matcher of llguidance's
(https://github.com/guidance-ai/llguidance), the one file that imports it. Knows text and ids; does
not know prompts, requests or the engine, which asks a GrammarConstraint after every id. Called by
the API and by tool_calls.py. docs/structured.md says what is supported and what is refused.

Nothing is imported or built before the first grammar: llguidance takes 40 ms to import and 200 ms
to read a vocabulary of 49,000.
"""

from __future__ import annotations

import json
import re
import threading
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

from handlers.errors import EngineFault, GrammarTooComplex, InvalidRequest
from handlers.text.enforceable_schema import enforceable
from handlers.text.grammar_errors import TOO_COMPLEX, log_left_out, reason, rule_at_fault
from handlers.text.json_schema import JSON_STYLE, MAX_SOURCE, Budget
from handlers.text.panics import panic_is_fault
from handlers.text.schema_repair import Repair, Trials
from handlers.text.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import llguidance
    import numpy as np
    from numpy.typing import NDArray

    from handlers.text.enforceable_schema import Enforceable
    from handlers.text.tokenizer import Tokenizer

# 4,000 that name one another in a chain overflow a stack of 8 MB, which ends the process.
MAX_RULES = 1_000
# Each doubles the time in which expressions are combined: 16 take 0.2 s, 20 take 5 s.
MAX_INTERSECTIONS = 8
# 50,000 in a condition (%if) overflow the stack, which ends the process.
MAX_NESTING = 500
# A string or a regular expression of Lark's, in which & is itself.
LARK_TEXT = re.compile(r'"(?:\\.|[^"\\\n])*"|/(?:\\.|[^/\\\n])+/')
# A rule or token of Lark's begins a line. The colon may come behind attributes in brackets.
LARK_RULE = re.compile(r"^[ \t]*[?!]*\w[^:\n]*:", re.MULTILINE)

# llguidance's own bounds, where its defaults are too narrow or too wide; measured in
# docs/structured.md.
LIMITS: Mapping[str, Any] = {
    "max_items_in_row": 20_000,  # 2,000 end a choice between 500 objects in mid-answer
    "step_max_items": 20_000,  # 0.2 s, for a grammar that is ambiguous at every letter
    "max_grammar_size": 30_000,  # symbols, 5 for a property; the time grows with their square
    "max_lexer_states": 50_000,  # 1 to 2 kB each
    "verbose_errors": False,  # no parser's state in an error
}


class GrammarConstraint:
    """One answer's place in its grammar: the Constraint that the engine asks."""

    def __init__(
        self,
        matcher: llguidance.LLMatcher,
        vocabulary: llguidance.LLTokenizer,
        field: str | None = None,
    ) -> None:
        import numpy as np

        self.field = field
        """The request's field that has the grammar, for errors. Set by who knows it."""
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._mask = np.zeros(-(-vocabulary.vocab_size // 32), np.uint32)

    def copy(self) -> GrammarConstraint:
        """Another constraint at the same place. Each of a request's `n` choices needs its own."""
        return GrammarConstraint(self._matcher.deep_copy(), self._vocabulary, self.field)

    def allowed(self) -> NDArray[np.uint32]:
        """Bits [ceil(vocab / 32)] in a buffer that the next call overwrites.

        Raises GrammarTooComplex where the grammar outgrows a limit in mid-answer.
        """
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        return self._mask

    def accept(self, token_id: int) -> None:
        """Moves on past one id.

        Raises GrammarTooComplex, and EngineFault for an id that is not allowed.
        """
        if not self._matcher.try_consume_tokens([token_id]):
            self._check()
            raise EngineFault(f"The grammar does not allow the id {token_id}.")

    def forced(self) -> list[int]:
        """Ids that must follow, in order: as the tokenizer itself would cut the forced text.

        The last of them that what follows could still change are held back, so an answer has
        the ids that the model would have learnt for its text.
        """
        ids = self._matcher.compute_ff_tokens()
        self._check()
        return ids

    @property
    def complete(self) -> bool:
        """Whether nothing but the end may follow."""
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            _raise_panic(self._matcher)
            raise GrammarTooComplex(
                f"The grammar cannot be followed to the end of an answer: "
                f"{reason(self._matcher.get_error())}. Make it simpler.",
                param=self.field,
            )


class Grammars:
    """Compiles grammars for one model's vocabulary.

    Every method raises InvalidRequest, in a person's words and without `param`, for what cannot
    be compiled.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        """`vocab_size`: of the logits, which may have more columns than the tokenizer has ids."""
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._eos_token_ids = tuple(i for i in eos_token_ids if i < vocab_size)
        self._lock = threading.Lock()
        self._built: llguidance.LLTokenizer | None = None

    def json_object(self) -> GrammarConstraint:
        """Any JSON object."""
        return self.json_schema({"type": "object"})

    def json_schema(
        self,
        schema: Mapping[str, Any],
        *,
        strict: bool = False,
        report: Callable[[str], None] = log_left_out,
    ) -> GrammarConstraint:
        """JSON that is valid under `schema`, in JSON_STYLE, properties in the schema's order.

        Without `strict` it is valid under as much of it as can be enforced, and `report` is called
        with the rest. With it, `param` of an InvalidRequest is the path to what is at fault.
        """
        source = enforceable(schema, strict=strict, budget=Budget(), report=report)
        matcher = self._of_schema(source.schema)
        if _can_be_mended(matcher):
            repair = Repair(source, Trials(self._why_not))
            if strict:
                raise repair.fault(reason(matcher.get_error()))
            matcher = self._of_schema(repair.repaired(report))
        return self._checked("The JSON schema", matcher)

    def regex(self, pattern: str) -> GrammarConstraint:
        r"""Text that `pattern` matches as a whole, in the syntax of Rust's regex crate.

        But \d, \w and \s are ASCII's, as in ECMA's expressions and in vLLM's: Rust's would let a
        model write digits that no client reads as a number.
        """
        # llguidance would drop it without a word.
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            raise InvalidRequest("The regular expression ends in a backslash that escapes nothing.")
        return self._regex("regular expression", pattern)

    def _regex(self, kind: str, pattern: str) -> GrammarConstraint:
        from llguidance import regex_to_lark

        _bounded(kind, pattern)
        lark = f"start: /(?:{regex_to_lark(pattern, 'dws')})/"
        return self._compile(kind, {"lark_grammar": lark})

    def choice(self, choices: Sequence[str]) -> GrammarConstraint:
        """One of `choices`."""
        if not choices:
            raise InvalidRequest("The list of choices is empty: give at least one.")
        pattern = "|".join(re.escape(choice) for choice in choices)
        return self._regex("list of choices", pattern)

    def lark(self, grammar: str) -> GrammarConstraint:
        """Lark, in llguidance's dialect; `start` is the rule that the answer follows."""
        if "%json" in grammar:
            raise InvalidRequest("The Lark grammar has %json: send a JSON schema instead.")
        _few_rules("Lark grammar", LARK_RULE.findall(grammar))
        _few_intersections(grammar)
        _few_levels(grammar)
        return self._compile("Lark grammar", {"lark_grammar": grammar})

    def lark_with_schemas(
        self,
        lines: Sequence[str],
        schemas: Mapping[str, Enforceable],
        refusal: Callable[[str, InvalidRequest], InvalidRequest],
    ) -> GrammarConstraint:
        """Lark that this project writes, with rules that are JSON of a schema each: `schemas`.

        `refusal` makes the error about the schema of a rule, whose name no client knows.
        """
        found = {rule: source.schema for rule, source in schemas.items()}
        matcher = self._of_lark(lines, found)
        if _can_be_mended(matcher):
            trials = Trials(self._why_not)
            for rule, source in schemas.items():
                why = self._why_not(source.schema)
                if why and source.strict:
                    raise refusal(rule, Repair(source, trials).fault(why))
                if why:
                    found[rule] = Repair(source, trials).repaired(log_left_out)
            matcher = self._of_lark(lines, found)
        try:
            return self._checked("The JSON schema", matcher)
        except InvalidRequest as error:
            rule = rule_at_fault(_lark(lines, found), matcher.get_error())
            raise (refusal(rule, error) if rule in schemas else error) from None

    def gbnf(self, grammar: str) -> GrammarConstraint:
        """llama.cpp's GBNF; `root` is the rule that the answer follows."""
        _bounded("GBNF grammar", grammar)
        _few_rules("GBNF grammar", grammar.split("::=")[1:])
        return self._compile("GBNF grammar", {"lark_grammar": _lark_of_gbnf(grammar)})

    def _compile(self, kind: str, grammar: Mapping[str, Any]) -> GrammarConstraint:
        return self._checked(f"The {kind}", self._matcher(kind, grammar))

    def _of_schema(self, schema: Mapping[str, Any]) -> llguidance.LLMatcher:
        return self._matcher("JSON schema", {"json_schema": {**schema, "x-guidance": JSON_STYLE}})

    def _of_lark(
        self, lines: Sequence[str], schemas: Mapping[str, Mapping[str, Any]]
    ) -> llguidance.LLMatcher:
        return self._matcher("grammar", {"lark_grammar": _lark(lines, schemas)})

    def _why_not(self, schema: Mapping[str, Any]) -> str:
        """The reason why a schema does not compile by itself; empty where it does."""
        return reason(self._of_schema(schema).get_error())

    def _checked(self, subject: str, matcher: llguidance.LLMatcher) -> GrammarConstraint:
        if matcher.is_error():
            raise InvalidRequest(f"{subject} cannot be used: {reason(matcher.get_error())}.")
        return GrammarConstraint(matcher, self._vocabulary())

    @panic_is_fault("llguidance")
    def _matcher(self, kind: str, grammar: Mapping[str, Any]) -> llguidance.LLMatcher:
        """A matcher of the grammar, in its error state where that cannot be compiled."""
        import llguidance

        try:
            source = _bounded(kind, json.dumps({"grammars": [grammar]}))
        except RecursionError:
            raise InvalidRequest(f"The {kind} is nested too deeply.") from None
        limits = llguidance.LLParserLimits(**LIMITS)
        vocabulary = self._vocabulary()
        matcher = llguidance.LLMatcher(vocabulary, source, log_level=0, limits=limits)
        # Some faults show at the first mask only: a $ref that leads to itself allows nothing.
        if not matcher.is_error():
            matcher.compute_bitmask()
        _raise_panic(matcher)
        return matcher

    def _vocabulary(self) -> llguidance.LLTokenizer:
        """llguidance's view of the vocabulary, built by the first request that needs it."""
        with self._lock:
            if self._built is None:
                self._built = self._build()
            return self._built

    def _build(self) -> llguidance.LLTokenizer:
        import llguidance

        wrapper = cast(
            "llguidance.TokenizerWrapper",
            Vocabulary(self._tokenizer, self._vocab_size, self._eos_token_ids),
        )
        return llguidance.LLTokenizer(wrapper, eos_token=list(self._eos_token_ids))


def _raise_panic(matcher: llguidance.LLMatcher) -> None:
    """Raises EngineFault for a panic that became an error of the matcher, as most do."""
    error = matcher.get_error()
    if error.startswith("panic: "):
        raise EngineFault(f"llguidance panicked: {error}")


def _can_be_mended(matcher: llguidance.LLMatcher) -> bool:
    """Whether leaving something out may help: not where the grammar costs too much to compile.

    Each trial would cost as much.
    """
    return matcher.is_error() and reason(matcher.get_error()) != TOO_COMPLEX


def _lark(lines: Sequence[str], schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """The grammar's lines with a rule for each schema, one on a line: errors name the line."""
    rules = (
        f"{rule}: %json {json.dumps({**schema, 'x-guidance': JSON_STYLE})}"
        for rule, schema in schemas.items()
    )
    return "\n".join([*lines, *rules])


def _lark_of_gbnf(grammar: str) -> str:
    """The same grammar in Lark. Raises InvalidRequest; any other error is a bug."""
    from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

    try:
        return gbnf_to_lark(grammar)
    except RecursionError:
        raise InvalidRequest("The GBNF grammar is nested too deeply.") from None
    except (ValueError, IndexError):  # of "{²}", of 5,000 digits and of a backslash at the end
        why = "it has a number that cannot be read, or ends in a backslash"
    except Exception as error:
        # For a rule that is missing it raises Exception itself.
        if type(error) not in (Exception, GbnfToLarkError):
            raise
        why = reason(str(error))
    raise InvalidRequest(f"The GBNF grammar cannot be used: {why}.")


def _few_rules(kind: str, rules: Sequence[str]) -> None:
    if len(rules) > MAX_RULES:
        raise InvalidRequest(f"The {kind} may have {MAX_RULES:,} rules, but has more.")


def _few_intersections(grammar: str) -> None:
    """Raises InvalidRequest for a Lark grammar of too many & between its expressions."""
    if LARK_TEXT.sub("", grammar).count("&") > MAX_INTERSECTIONS:
        raise InvalidRequest(
            f"The Lark grammar may have {MAX_INTERSECTIONS} intersections (&), but has more."
        )


def _few_levels(grammar: str) -> None:
    """Raises InvalidRequest for a Lark grammar of too many parentheses within one another."""
    steps = (1 if mark == "(" else -1 for mark in re.findall(r"[()]", LARK_TEXT.sub("", grammar)))
    if max(accumulate(steps), default=0) > MAX_NESTING:
        raise InvalidRequest(
            f"The Lark grammar may have {MAX_NESTING} parentheses within one another, but has more."
        )


def _bounded(kind: str, source: str) -> str:
    try:
        source.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"The {kind} has half of a surrogate pair: remove it.") from None
    if len(source) > MAX_SOURCE:
        raise InvalidRequest(
            f"The {kind} has {len(source):,} characters, but may have {MAX_SOURCE:,}."
        )
    return source
