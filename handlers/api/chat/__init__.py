"""POST /v1/chat/completions: its body, its messages, its answers."""
