"""Strings live here and above; below there are only token ids."""
