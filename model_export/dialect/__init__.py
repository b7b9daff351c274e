"""Finds the dialect of a model, its marks of thoughts and tool calls, in its chat templates."""
