"""POST /v1/responses: its body, its items, its events."""
