"""Asks a deployed Kindling whether it works, by its URL alone."""
