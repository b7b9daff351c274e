"""Turns the arguments of tool calls, in each style that models have, into JSON as they arrive."""
