"""The part of a JSON schema that a grammar can enforce: what it is, and what it may cost."""
