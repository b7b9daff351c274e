"""Sizes of an artefact and of what serves it: `--dry-run` and `--list`."""
