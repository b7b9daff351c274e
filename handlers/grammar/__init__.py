"""Structured output: which token ids may come next, so that an answer is valid by construction.

How a JSON schema is enforced: `GrammarCompiler.json_schema` (compiler.py) hands it to
schema/relax.py. That counts it into the request's `Budget` (schema/limits.py), resolves its
references (schema/references.py), finds those that no finite value satisfies (schema/endless.py)
and walks it keyword by keyword (schema/keywords.py): schema/assertions.py checks values and bounds,
schema/patterns.py counts patterns, and schema/one_of.py finds whether a `oneOf` may become an
`anyOf`. What cannot be enforced is refused or left out (schema/strictness.py). compiler.py gives
the rest to llguidance, which reads the model's tokens through vocabulary.py. If llguidance refuses
it, schema/repair.py finds by trial which part is at fault, and errors.py words why. The result is a
`GrammarConstraint` (constraint.py), which the engine asks after every token.

tool_grammar.py makes one grammar of the schemas of all tools: call_rules.py writes what stands
around arguments, tool_arguments.py the arguments in the style of the model's dialect, which are
JSON, tagged_arguments.py or literal_arguments.py. The last two read a schema through
schema/object_shape.py, and its strings' patterns through text_patterns.py; all write Lark by
lark_rules.py. sources.py checks what clients write themselves: Lark, GBNF and regular expressions.

thinking.py has a grammar begin after a model's thoughts.
"""
