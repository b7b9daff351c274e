"""Structured output: which token ids may come next, so that an answer is valid by construction.

How a JSON schema is enforced: `GrammarCompiler.json_schema` (compiler.py) hands it to
schema/relax.py, which counts it into the request's `Budget` (schema/limits.py), resolves its
references (schema/references.py, schema/endless.py) and walks it keyword by keyword, with
schema/numbers.py for bounds, schema/patterns.py for patterns and schema/one_of.py for `oneOf`. What
cannot be enforced is refused or left out. compiler.py gives the rest to llguidance, which reads the
model's tokens through vocabulary.py. Where llguidance refuses it, schema/repair.py finds by trial
which part is at fault, and errors.py words why. The result is a `GrammarConstraint`
(constraint.py), which the engine asks after every token. tool_grammar.py does the same for tool
calls, in one grammar with the schema of every tool. sources.py checks what clients write themselves
in Lark, GBNF and regular expressions.
"""
