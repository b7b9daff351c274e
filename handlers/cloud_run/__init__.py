"""The Cloud Run adapter: `python -m handlers.cloud_run` serves the `handler` of function.py."""
