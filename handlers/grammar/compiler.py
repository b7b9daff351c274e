"""Compiles JSON schemas, regular expressions, Lark and GBNF to constraints of one vocabulary.

All become matchers of llguidance (https://github.com/guidance-ai/llguidance). docs/structured.md
says what is supported and what is refused. Nothing is imported or built before the first grammar:
llguidance takes 40 ms to import and 200 ms to read a vocabulary of 49,000.
"""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, Any, cast

from handlers.errors import InvalidRequest, panic_is_fault
from handlers.grammar.constraint import GrammarConstraint
from handlers.grammar.errors import TOO_COMPLEX, log_left_out, raise_panic, reason, rule_at_fault
from handlers.grammar.schema.limits import Budget
from handlers.grammar.schema.relax import enforceable
from handlers.grammar.schema.repair import Repair, Trials
from handlers.grammar.sources import (
    check_lark,
    check_source,
    lark_of_gbnf,
    lark_of_regex,
    lark_with_json,
    styled,
)
from handlers.grammar.vocabulary import Vocabulary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import llguidance

    from handlers.grammar.schema.relax import EnforceableSchema
    from handlers.text.tokenizer import Tokenizer

# llguidance's own bounds, where its defaults are too narrow or too wide; measured in
# docs/structured.md.
LIMITS: Mapping[str, Any] = {
    "max_items_in_row": 20_000,  # 2,000 end a choice between 500 objects in mid-answer
    "step_max_items": 20_000,  # 0.2 s, for a grammar that is ambiguous at every letter
    "max_grammar_size": 30_000,  # symbols, 5 for a property; the time grows with their square
    "max_lexer_states": 50_000,  # 1 to 2 kB each
    "verbose_errors": False,  # no parser's state in an error
}


class GrammarCompiler:
    """Compiles grammars for one model's vocabulary.

    Every method raises InvalidRequest for what cannot be compiled, without `param` unless it says
    otherwise.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        """`vocab_size`: of the logits, which may have more columns than the tokenizer has ids."""
        self.tokenizer = tokenizer
        self.vocab_size = vocab_size
        self.eos_token_ids = tuple(i for i in eos_token_ids if i < vocab_size)
        self._lock = threading.Lock()
        self._built: llguidance.LLTokenizer | None = None

    def json_object(self) -> GrammarConstraint:
        """Compiles a grammar of any JSON object."""
        return self.json_schema({"type": "object"})

    def json_schema(
        self,
        schema: Mapping[str, Any],
        *,
        strict: bool = False,
        report: Callable[[str], None] = log_left_out,
    ) -> GrammarConstraint:
        """Compiles a grammar of JSON that is valid under `schema`.

        It is in JSON_STYLE, with the properties in the schema's order. Without `strict` it is valid
        under as much of the schema as can be enforced, and `report` is called with each part that
        is left out. With it, `param` of an InvalidRequest is the path to what is at fault.
        """
        source = enforceable(schema, strict=strict, budget=Budget(), report=report)
        matcher = self._schema_matcher(source.schema)
        if _is_repairable(matcher):
            repair = Repair(source, Trials(self._compile_error))
            if strict:
                raise repair.schema_error(reason(matcher.get_error()))
            matcher = self._schema_matcher(repair.repaired(report))
        return self._constraint("The JSON schema", matcher)

    def regex(self, pattern: str) -> GrammarConstraint:
        """Compiles a regular expression, in the syntax of Rust's regex crate, of a whole answer."""
        # llguidance would drop it without a word.
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            raise InvalidRequest("The regular expression ends in a backslash that escapes nothing.")
        return self._regex("regular expression", pattern)

    def choice(self, choices: Sequence[str]) -> GrammarConstraint:
        """Compiles a grammar of one of `choices`."""
        if not choices:
            raise InvalidRequest("The list of choices is empty: give at least one.")
        pattern = "|".join(re.escape(choice) for choice in choices)
        return self._regex("list of choices", pattern)

    def lark(self, grammar: str) -> GrammarConstraint:
        """Compiles Lark in llguidance's dialect; the answer follows the rule `start`."""
        check_lark(grammar)
        return self._lark("Lark grammar", grammar)

    def lark_with_schemas(
        self,
        lines: Sequence[str],
        schemas: Mapping[str, EnforceableSchema],
        locate: Callable[[str, InvalidRequest], InvalidRequest],
    ) -> GrammarConstraint:
        """Compiles Lark of this project, with a rule that is JSON for each of `schemas`.

        `locate` returns an error about the schema of a rule as one that names the request's field.
        """
        relaxed = {rule: source.schema for rule, source in schemas.items()}
        matcher = self._matcher_with_schemas(lines, relaxed)
        if _is_repairable(matcher):
            trials = Trials(self._compile_error)
            for rule, source in schemas.items():
                why = self._compile_error(source.schema)
                if why and source.strict:
                    raise locate(rule, Repair(source, trials).schema_error(why))
                if why:
                    relaxed[rule] = Repair(source, trials).repaired(log_left_out)
            matcher = self._matcher_with_schemas(lines, relaxed)
        try:
            return self._constraint("The JSON schema", matcher)
        except InvalidRequest as error:
            rule = rule_at_fault(lark_with_json(lines, relaxed), matcher.get_error())
            raise (locate(rule, error) if rule in schemas else error) from None

    def lark_error(self, grammar: str) -> str:
        """Returns why Lark of this project does not compile, empty if it does."""
        return reason(self._matcher("grammar", {"lark_grammar": grammar}).get_error())

    def gbnf(self, grammar: str) -> GrammarConstraint:
        """Compiles llama.cpp's GBNF; the answer follows the rule `root`."""
        return self._lark("GBNF grammar", lark_of_gbnf(grammar))

    def _regex(self, kind: str, pattern: str) -> GrammarConstraint:
        return self._lark(kind, lark_of_regex(kind, pattern))

    def _lark(self, kind: str, grammar: str) -> GrammarConstraint:
        return self._constraint(f"The {kind}", self._matcher(kind, {"lark_grammar": grammar}))

    def _constraint(self, subject: str, matcher: llguidance.LLMatcher) -> GrammarConstraint:
        if matcher.is_error():
            raise InvalidRequest(f"{subject} cannot be used: {reason(matcher.get_error())}.")
        return GrammarConstraint(matcher, self._vocabulary())

    def _schema_matcher(self, schema: Mapping[str, Any]) -> llguidance.LLMatcher:
        return self._matcher("JSON schema", {"json_schema": styled(schema)})

    def _compile_error(self, schema: Mapping[str, Any]) -> str:
        """Returns why a schema does not compile by itself, empty where it does."""
        return reason(self._schema_matcher(schema).get_error())

    def _matcher_with_schemas(
        self, lines: Sequence[str], schemas: Mapping[str, Mapping[str, Any]]
    ) -> llguidance.LLMatcher:
        return self._matcher("grammar", {"lark_grammar": lark_with_json(lines, schemas)})

    @panic_is_fault("llguidance")
    def _matcher(self, kind: str, grammar: Mapping[str, Any]) -> llguidance.LLMatcher:
        """Returns a matcher of the grammar, in its error state where that cannot be compiled."""
        import llguidance

        try:
            source = check_source(kind, json.dumps({"grammars": [grammar]}))
        except RecursionError:
            raise InvalidRequest(f"The {kind} is nested too deeply.") from None
        limits = llguidance.LLParserLimits(**LIMITS)
        vocabulary = self._vocabulary()
        matcher = llguidance.LLMatcher(vocabulary, source, log_level=0, limits=limits)
        # Some faults show at the first mask only: a $ref that leads to itself allows nothing.
        if not matcher.is_error():
            matcher.compute_bitmask()
        raise_panic(matcher.get_error())
        return matcher

    def _vocabulary(self) -> llguidance.LLTokenizer:
        """Returns llguidance's view of the vocabulary, which the first request builds."""
        with self._lock:
            if self._built is None:
                self._built = self._build()
            return self._built

    def _build(self) -> llguidance.LLTokenizer:
        import llguidance

        wrapper = cast(
            "llguidance.TokenizerWrapper",
            Vocabulary(self.tokenizer, self.vocab_size, self.eos_token_ids),
        )
        return llguidance.LLTokenizer(wrapper, eos_token=list(self.eos_token_ids))


def _is_repairable(matcher: llguidance.LLMatcher) -> bool:
    """Returns whether a schema failed for something that can be left out of it.

    Not where it costs too much to compile: each trial would cost as much.
    """
    return matcher.is_error() and reason(matcher.get_error()) != TOO_COMPLEX
