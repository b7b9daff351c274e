"""A client of Lambda's Runtime API that streams, and serves many invocations in one process."""
