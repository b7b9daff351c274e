"""An error that a person can put right: `deploy.aws` prints it and ends with status 1."""

from __future__ import annotations


class DeployError(Exception):
    """A deployment that cannot go on; its message says what to do."""
