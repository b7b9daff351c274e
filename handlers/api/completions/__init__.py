"""POST /v1/completions: its body, its prompts, its answers."""
