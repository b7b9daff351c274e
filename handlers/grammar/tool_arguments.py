"""The rules of the arguments of all tools of a request, in the style of one model's calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from handlers.artifact.dialect import JsonArguments, TaggedArguments
from handlers.errors import InvalidRequest
from handlers.grammar.errors import log_left_out
from handlers.grammar.lark_rules import LarkRules
from handlers.grammar.literal_arguments import LiteralRules
from handlers.grammar.schema.limits import MAX_SOURCE, TOGETHER, Budget
from handlers.grammar.schema.object_shape import SchemaReader
from handlers.grammar.schema.relax import enforceable
from handlers.grammar.schema.strictness import Strictness
from handlers.grammar.tagged_arguments import TaggedRules
from handlers.grammar.text_patterns import TextPatterns

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from handlers.artifact.dialect import Arguments
    from handlers.grammar.schema.relax import EnforceableSchema
    from handlers.grammar.text_patterns import PatternTrials

    Locate = Callable[[InvalidRequest], InvalidRequest]
    """Returns an error about a schema as one that names the request's field."""


class ArgumentRules:
    """Adds the rules of the schemas of one request, which share its limits."""

    def __init__(self, style: Arguments, trials: PatternTrials) -> None:
        """`trials`: of the patterns of strings that are not JSON's."""
        self.rules = LarkRules()
        self._style = style
        self._trials = trials
        self._budget = Budget()
        self._owners: dict[str, Locate] = {}

    def arguments(self, schema: Mapping[str, Any], strict: bool, locate: Locate) -> str:
        """Returns the rule of the arguments of a tool."""
        return self._added(schema, strict, locate, self._style)

    def json(self, schema: Mapping[str, Any], strict: bool, locate: Locate) -> str:
        """Returns the rule of JSON of a schema."""
        return self._added(schema, strict, locate, JsonArguments())

    def locate(self, rule: str, error: InvalidRequest) -> InvalidRequest:
        """Returns an error about a rule that is JSON as one that names the request's field."""
        return self._owners[rule](error)

    def _added(
        self, schema: Mapping[str, Any], strict: bool, locate: Locate, style: Arguments
    ) -> str:
        try:
            source = enforceable(schema, strict=strict, budget=self._budget, report=log_left_out)
            rule = self._rule(source, schema, style)
            if self.rules.characters > MAX_SOURCE:
                raise InvalidRequest(
                    f"The JSON schema cannot be used: as a grammar it may have {MAX_SOURCE:,} "
                    f"characters {TOGETHER}, but has more. Make it smaller."
                )
        except InvalidRequest as error:
            raise locate(error) from None
        for each in self.rules.schemas:
            self._owners.setdefault(each, locate)
        return rule

    def _rule(self, source: EnforceableSchema, schema: Mapping[str, Any], style: Arguments) -> str:
        if isinstance(style, JsonArguments):
            return self.rules.json(source)
        reader = SchemaReader(source, Strictness(source.strict, log_left_out))
        patterns = TextPatterns(reader, self._trials)
        if isinstance(style, TaggedArguments):
            return self.rules.rule(TaggedRules(self.rules, style, reader, patterns, schema).body())
        return self.rules.rule(LiteralRules(self.rules, style, reader, patterns).body())
