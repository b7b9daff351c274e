"""The Cloud Run adapter: `python -m handlers.cloud_run` serves function.py's `handler`."""
